"""One part on its way from recorded calls to a published version: export, gates, publish; run by optimize.parts.run.

The one invariant: until every gate has passed, nothing of the part changes in the model repository.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Final, Literal

from optimize.external import size_with_data
from optimize.onnx_export import OPSET
from optimize.onnx_export import Notify as OnnxNotify
from optimize.parts import gates
from optimize.parts.build import Source, build
from optimize.parts.fingerprint import fingerprint_of, kept_export
from optimize.parts.folder import check_owner, folder_files, folder_name
from optimize.parts.gates import Loaded
from optimize.parts.memory import check_memory
from optimize.parts.opened import has_gpu
from optimize.parts.part import Part
from optimize.parts.precision import check_weights
from optimize.parts.quantized import TOOLS, TRIALS, quantized
from optimize.parts.record import Recording
from optimize.parts.whole import check_whole
from optimize.publish import is_whole, next_version, publish, published, versions, write_report
from optimize.report import Gate, GateRow, Report, Runner, TimingRow, TrialRow, VariantRow, machine
from optimize.threads import THREADS
from serving.errors import EngineFailed, ReelmeshError, foreign_text
from serving.protocol.tasks import TaskRequest
from serving.repository.model import Model, ModelCard
from serving.repository.part_file import PartFile, Precision, read_part
from serving.repository.plan_file import onnx_digest

Notify = Callable[[str, str], None]
"""Told the part and the step."""

STEPS: Final = ("record", "export", "load", "parity", "quality", "memory", "time", "publish")


@dataclass(frozen=True)
class Asked:
    """What is wanted of a model.

    Attributes:
        parts: names; none means all.
        precision: of the files.
        force: export again even if nothing changed.
        requests: a file of them instead of the family's own samples; their inputs calibrate INT8.
    """

    parts: Sequence[str] = ()
    precision: Precision = "fp32"
    force: bool = False
    requests: Path | None = None


@dataclass(frozen=True)
class PartOutcome:
    """What came of one part.

    Attributes:
        part: its name.
        status: a new version, the same bytes as before, nothing to do, or a gate or the export failed.
        folder: of the version, or of the part where it failed.
        report: of the version.
        error: why it failed.
        gates: where it failed, those that were passed, and the one that was not.
        note: what else there is to say.
    """

    part: str
    status: Literal["published", "same_bytes", "up_to_date", "failed"]
    folder: Path
    report: Report | None = None
    error: ReelmeshError | None = None
    gates: Sequence[GateRow] = ()
    note: str = ""


def part_folder(model: Model, name: str) -> Path:
    """Where a part's versions are."""
    return model.folder.parent / folder_name(model.name, name)


@dataclass(frozen=True)
class Work:
    """One part on its way through the gates."""

    model: Model
    name: str
    part: Part
    asked: Asked
    fingerprint: str
    recording: Recording
    notify: Notify
    begun: list[Gate] = field(default_factory=list)
    passed: list[GateRow] = field(default_factory=list)

    async def outcome(self, weights_digest: str) -> PartOutcome:
        """Do it; an error is an outcome too, since it shall not keep other parts from being done."""
        module, calls = self.recording.module(self.part), self.recording.calls[self.name]
        source = Source(self.model.name, self.name, self.part, module, calls, weights_digest)
        try:
            return await self._make(source)
        except ReelmeshError as error:
            return self._failed(error)
        except Exception as error:  # what torch, onnx or the disk raise
            problem = f"{type(error).__name__}: {foreign_text(error)}"
            failure = EngineFailed(problem, field=self.name)
            failure.__cause__ = error
            return self._failed(failure)

    def _failed(self, error: ReelmeshError) -> PartOutcome:
        rows = list(self.passed)
        if len(self.begun) > len(rows):
            rows.append(GateRow(gate=self.begun[-1], outcome="failed", detail=error.problem))
        return PartOutcome(self.name, "failed", part_folder(self.model, self.name), error=error, gates=rows)

    async def _make(self, source: Source) -> PartOutcome:
        target = part_folder(self.model, self.name)
        check_owner(target, self.model.name, self.name)
        check_weights(source.module, self.name)
        self.notify(self.name, "export")
        folder = await asyncio.to_thread(self._exported, source)
        part = read_part(folder)
        self._begin("load")
        loaded = gates.load(source, part, folder)
        self._pass("ONNX Runtime")
        try:
            report = await self._gated(source, part, folder, loaded)
        finally:
            for one in loaded:
                one.runner.close()
        self.notify(self.name, "publish")
        if (same := self._same(target, part, report)) is not None:
            report = report.model_copy(update={"version": int(same.name)})
            write_report(same, report)
            return PartOutcome(self.name, "same_bytes", same, report)
        report = report.model_copy(update={"version": next_version(versions(target))})
        files = [file for file in sorted(folder.iterdir()) if file.name not in (TOOLS, TRIALS)]
        made = publish(target, files, report, folder_files(self.model, part, target))
        return PartOutcome(self.name, "published", made, report)

    def _begin(self, gate: Gate) -> None:
        self.notify(self.name, gate)
        self.begun.append(gate)

    def _pass(self, detail: str) -> None:
        self.passed.append(GateRow(gate=self.begun[-1], outcome="passed", detail=detail))

    def _same(self, target: Path, part: PartFile, report: Report) -> Path | None:
        """The newest version of this precision, if it has the very same files."""
        for version, before in published(target):
            if before.precision == report.precision:
                same = before.variants == report.variants and is_whole(version, before) and read_part(version) == part
                return version if same else None
        return None

    def _exported(self, source: Source) -> Path:
        """The folder of the export: fp32, half precision, or INT8 made of the fp32 one."""
        requests, card, force = self.recording.requests, self.model.card, self.asked.force

        def told(step: str) -> None:
            self.notify(self.name, f"export: {step}")

        if self.asked.precision != "int8":
            return kept_build(source, self.asked.precision, requests, card, notify=told, force=force)
        floating = kept_build(source, "fp32", requests, card, notify=told, force=force)

        def made(folder: Path) -> None:
            _keep_tools(quantized(source, floating, folder, notify=told), folder)

        return kept_export(self.fingerprint, made, force=force)

    async def _gated(self, source: Source, part: PartFile, folder: Path, loaded: Sequence[Loaded]) -> Report:
        self._begin("parity")
        tolerance = self.part.tolerance(self.asked.precision)
        parity = gates.check_parity(loaded, tolerance)
        self._pass(f"{max(row.relative for row in parity):.1e} of the output's scale")
        self._begin("quality")
        quality = await check_whole(self.recording, source.module, part, loaded)
        self._pass(", ".join(f"{row.measure} {row.value:.4g} {row.unit}".strip() for row in quality))
        self._begin("memory")
        memory = check_memory(source, loaded)  # in this thread: torch's profiler belongs to the one that loaded it
        self._pass(f"{memory.onnx_peak_bytes >> 20} MiB, torch {memory.torch_peak_bytes >> 20} MiB")
        self._begin("time")
        timing = await asyncio.to_thread(self._timed, source, loaded)
        where = " on the CPU, the file on the GPU" if has_gpu() else ""
        self._pass(f"{median(row.speedup for row in timing):.2f} times torch's speed{where}")
        tools = json.loads((folder / TOOLS).read_text(encoding="utf-8"))
        fixes = tools.pop("fixes", "")
        trials = folder / TRIALS
        held = json.loads(trials.read_text(encoding="utf-8")) if trials.is_file() else []
        rows = [_variant(one) for one in loaded]
        return Report(
            model=self.model.name,
            version=0,
            part=self.name,
            precision=self.asked.precision,
            fingerprint=self.fingerprint,
            weights_sha256=source.digest,
            onnx_sha256=onnx_digest(loaded[0].file),
            onnx_bytes=sum(row.onnx_bytes for row in rows),
            opset=OPSET,
            relative_tolerance=tolerance,
            tools={**tools, "onnxruntime": metadata.version("onnxruntime")},
            fixes=[fix for fix in fixes.split(", ") if fix],
            variants=rows,
            gates=self.passed,
            parity=parity,
            quality=quality,
            memory=memory,
            trials=[TrialRow.model_validate(trial) for trial in held],
            timing=timing,
            threads=THREADS,
            machine=machine(),
        )

    def _timed(self, source: Source, loaded: Sequence[Loaded]) -> list[TimingRow]:
        others = self._others(source)
        try:
            return gates.timing(source, loaded, others, self.asked.precision)
        finally:
            for files in others.values():
                for one in files:
                    one.runner.close()

    def _others(self, source: Source) -> dict[Runner, Sequence[Loaded]]:
        """Published versions of other precisions, made of the same weights and called the same way, newest of each."""
        found: dict[Runner, Sequence[Loaded]] = {}
        for version, _ in published(part_folder(self.model, self.name)):
            try:
                part = read_part(version)
                if _called_alike(part, source) and part.precision not in (self.asked.precision, *found):
                    found[part.precision] = gates.load(source, part, version)
            except ReelmeshError:
                continue  # a damaged old version keeps nobody from a new one
        return found


def kept_build(
    source: Source,
    precision: Precision,
    requests: Sequence[TaskRequest],
    card: ModelCard,
    *,
    notify: OnnxNotify,
    force: bool = False,
) -> Path:
    """The kept export of a part in a floating precision, made if there is none.

    Args:
        source: what is exported, with the digest of its weights.
        precision: fp32, fp16 or bf16.
        requests: whose calls were recorded.
        card: of the model.
        notify: told of steps.
        force: make it again.
    """

    def made(folder: Path) -> None:
        _keep_tools(build(source, precision, folder, opset=OPSET, notify=notify), folder)

    return kept_export(fingerprint_of(source.part, precision, requests, card, source.digest, OPSET), made, force=force)


def _keep_tools(tools: Mapping[str, str], folder: Path) -> None:
    (folder / TOOLS).write_text(json.dumps(dict(tools)), encoding="utf-8")


def _called_alike(part: PartFile, source: Source) -> bool:
    """Whether a published version is of the same weights, and answers the same calls, variant by variant."""
    groups = source.groups()
    return (
        part.weights_digest == source.digest
        and len(part.variants) == len(groups)
        and all(
            variant.call == group.traced.call
            and [(tensor.name, tensor.axes) for tensor in variant.inputs]
            == [(tensor.name, tensor.axes) for tensor in group.inputs]
            for variant, group in zip(part.variants, groups, strict=True)
        )
    )


def _variant(one: Loaded) -> VariantRow:
    axes = dict.fromkeys(axis for tensor in one.variant.inputs for axis in tensor.axes if isinstance(axis, str))
    size = size_with_data(one.file)
    return VariantRow(name=one.file.name, onnx_bytes=size, onnx_sha256=onnx_digest(one.file), dynamic_axes=list(axes))
