"""One part on its way from recorded calls to a published version: export, gates, publish; run by optimize.parts.run.

The one invariant: until every gate has passed, nothing of the part changes in the model repository.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Final, Literal

from optimize.onnx_export import OPSET
from optimize.onnx_export import Notify as OnnxNotify
from optimize.parts import gates
from optimize.parts.build import Source, build
from optimize.parts.fingerprint import fingerprint_of, kept_export
from optimize.parts.folder import folder_files, folder_name
from optimize.parts.gates import Loaded
from optimize.parts.memory import check_memory
from optimize.parts.part import Part
from optimize.parts.precision import check_weights
from optimize.parts.quantized import TOOLS, TRIALS, quantized
from optimize.parts.record import Recording
from optimize.parts.whole import check_whole
from optimize.publish import digest, next_version, publish
from optimize.report import (
    GateRow,
    MemoryRow,
    ParityRow,
    QualityRow,
    Report,
    Runner,
    TimingRow,
    TrialRow,
    VariantRow,
    machine,
)
from optimize.threads import THREADS
from serving.errors import ReelmeshError
from serving.protocol.tasks import TaskRequest
from serving.repository.derive import is_version
from serving.repository.model import Model
from serving.repository.part_file import PartFile, Precision, read_part

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
    """

    part: str
    status: Literal["published", "same_bytes", "up_to_date", "failed"]
    folder: Path
    report: Report | None = None
    error: ReelmeshError | None = None


def part_folder(model: Model, name: str) -> Path:
    """Where a part's versions are."""
    return model.folder.parent / folder_name(model.name, name)


def versions(folder: Path) -> list[int]:
    """Of a part."""
    return [int(path.name) for path in folder.iterdir() if is_version(path.name)] if folder.is_dir() else []


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

    async def outcome(self, weights_digest: str) -> PartOutcome:
        """Do it; an error of ours is an outcome too."""
        module, calls = self.recording.module(self.part), self.recording.calls[self.name]
        source = Source(self.model.name, self.name, self.part, module, calls, weights_digest)
        try:
            folder, report = await self._make(source)
        except ReelmeshError as error:
            return PartOutcome(self.name, "failed", part_folder(self.model, self.name), error=error)
        return PartOutcome(self.name, "published", folder, report)

    async def _make(self, source: Source) -> tuple[Path, Report]:
        check_weights(source.module, self.name)
        self.notify(self.name, "export")
        folder = await asyncio.to_thread(self._exported, source)
        part = read_part(folder)
        self.notify(self.name, "load")
        loaded = gates.load(source, part, folder)
        try:
            report = await self._gated(source, part, folder, loaded)
        finally:
            for one in loaded:
                one.runner.close()
        self.notify(self.name, "publish")
        target = part_folder(self.model, self.name)
        report = report.model_copy(update={"version": next_version(versions(target))})
        files = [file for file in sorted(folder.iterdir()) if file.name not in (TOOLS, TRIALS)]
        return publish(target, files, report, folder_files(self.model, part)), report

    def _exported(self, source: Source) -> Path:
        """The folder of the export: fp32, half precision, or INT8 made of the fp32 one."""
        requests, force = self.recording.requests, self.asked.force

        def told(step: str) -> None:
            self.notify(self.name, f"export: {step}")

        if self.asked.precision != "int8":
            return kept_build(source, self.asked.precision, requests, notify=told, force=force)
        floating = kept_build(source, "fp32", requests, notify=told)

        def made(folder: Path) -> None:
            _keep_tools(quantized(source, floating, folder, notify=told), folder)

        return kept_export(self.fingerprint, made, force=force)

    async def _gated(self, source: Source, part: PartFile, folder: Path, loaded: Sequence[Loaded]) -> Report:
        self.notify(self.name, "parity")
        tolerance = self.part.tolerance(self.asked.precision)
        parity = gates.check_parity(loaded, tolerance)
        self.notify(self.name, "quality")
        quality = await check_whole(self.recording, source.module, part, loaded)
        self.notify(self.name, "memory")
        memory = check_memory(source, loaded)  # in this thread: torch's profiler belongs to the one that loaded it
        self.notify(self.name, "time")
        timing = await asyncio.to_thread(self._timed, source, loaded)
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
            onnx_sha256=digest(loaded[0].file),
            onnx_bytes=sum(row.onnx_bytes for row in rows),
            opset=OPSET,
            relative_tolerance=tolerance,
            tools={**tools, "onnxruntime": metadata.version("onnxruntime")},
            fixes=[fix for fix in fixes.split(", ") if fix],
            variants=rows,
            gates=_gates(parity, quality, memory, timing),
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
        folder = part_folder(self.model, self.name)
        for version in sorted(versions(folder), reverse=True):
            try:
                part = read_part(folder / str(version))
                fits = part.weights_digest == source.digest and len(part.variants) == len(source.groups())
                if fits and part.precision not in (self.asked.precision, *found):
                    found[part.precision] = gates.load(source, part, folder / str(version))
            except ReelmeshError:
                continue  # a damaged old version keeps nobody from a new one
        return found


def kept_build(
    source: Source, precision: Precision, requests: Sequence[TaskRequest], *, notify: OnnxNotify, force: bool = False
) -> Path:
    """The kept export of a part in a floating precision, made if there is none.

    Args:
        source: what is exported, with the digest of its weights.
        precision: fp32, fp16 or bf16.
        requests: whose calls were recorded.
        notify: told of steps.
        force: make it again.
    """

    def made(folder: Path) -> None:
        _keep_tools(build(source, precision, folder, opset=OPSET, notify=notify), folder)

    return kept_export(fingerprint_of(source.part, precision, requests, source.digest, OPSET), made, force=force)


def _keep_tools(tools: Mapping[str, str], folder: Path) -> None:
    (folder / TOOLS).write_text(json.dumps(dict(tools)), encoding="utf-8")


def _variant(one: Loaded) -> VariantRow:
    data = one.file.with_name(f"{one.file.name}.data")
    axes = dict.fromkeys(axis for tensor in one.variant.inputs for axis in tensor.axes if isinstance(axis, str))
    size = one.file.stat().st_size + (data.stat().st_size if data.is_file() else 0)
    return VariantRow(name=one.file.name, onnx_bytes=size, onnx_sha256=digest(one.file), dynamic_axes=list(axes))


def _gates(
    parity: Sequence[ParityRow], quality: Sequence[QualityRow], memory: MemoryRow, timing: Sequence[TimingRow]
) -> list[GateRow]:
    """In the order in which they were passed."""
    measures = ", ".join(f"{row.measure} {row.value:.4g} {row.unit}".strip() for row in quality)
    details = {
        "load": "ONNX Runtime",
        "parity": f"{max(row.relative for row in parity):.1e} of the output's scale",
        "quality": measures,
        "memory": f"{memory.onnx_peak_bytes >> 20} MiB, torch {memory.torch_peak_bytes >> 20} MiB",
        "time": f"{median(row.speedup for row in timing):.2f} times torch's speed",
    }
    return [
        GateRow.model_validate({"gate": gate, "outcome": "passed", "detail": told}) for gate, told in details.items()
    ]
