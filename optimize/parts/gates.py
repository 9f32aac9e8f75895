"""The gates of an exported part: parity, memory and time; the whole model's quality is optimize.parts.whole's.

The one invariant: a gate measures the file as the engine will run it, and raises or reports; it changes nothing.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from optimize.external import check_file
from optimize.gates import compare
from optimize.parts.build import Source, entering
from optimize.parts.opened import open_file
from optimize.parts.variants import LEAST_SIZES, Flat, Group, case_name, feed, run_flat, sizes_of
from optimize.recipe import BATCH
from optimize.report import ParityRow, Runner, TimingRow
from optimize.threads import THREADS
from serving.backends.ray.parts.calls import Tensors
from serving.backends.ray.parts.capture import RecordedCall, Sizes
from serving.backends.ray.parts.onnx_runner import Runner as PartRunner
from serving.errors import EngineFailed
from serving.repository.part_file import PartFile, PartTensor, Variant

ROUNDS: Final = 15
CASE_SECONDS: Final = 1.0
MOST_CASES: Final = 6
"""Bounds of one case's timing, and of cases; at least three rounds."""

Run = Callable[[], object]


@dataclass(frozen=True)
class Loaded:
    """A variant's file in ONNX Runtime, with the calls that it must answer.

    Attributes:
        group: of calls.
        variant: of the file.
        file: the ONNX file.
        runner: that has loaded it.
    """

    group: Group
    variant: Variant
    file: Path
    runner: PartRunner

    def cases(self) -> Sequence[RecordedCall]:
        """Calls of different sizes first, each size once, then others."""
        seen: dict[Sizes, RecordedCall] = {}
        for call in self.group.calls:
            seen.setdefault(call.sizes, call)
        others = [call for call in self.group.calls if seen[call.sizes] is not call]
        return [*seen.values(), *others][:MOST_CASES]

    def run(self, call: RecordedCall) -> Tensors:
        """The file's answer to a call."""
        return self.runner.run(entering(self.group, call, self.variant))


def load(source: Source, part: PartFile, folder: Path) -> list[Loaded]:
    """The first gate: every file loads.

    Raises:
        BadInput: a file is over 2 GB without external data, or its data are missing or short.
        EngineFailed: one does not load.
    """
    for variant in part.variants:
        check_file(folder / variant.file)
    return [
        Loaded(group, variant, folder / variant.file, open_file(folder / variant.file, variant))
        for group, variant in zip(source.groups(), part.variants, strict=True)
    ]


def check_parity(loaded: Sequence[Loaded], tolerance: float) -> list[ParityRow]:
    """Every output at every case against what torch said in fp32.

    Raises:
        EngineFailed: a difference over the tolerance, or too few sizes to tell.
    """
    rows = []
    for one in loaded:
        sizes = {call.sizes for call in one.group.calls}
        if one.group.is_dynamic and len(sizes) < LEAST_SIZES:
            fix = f"add requests of other sizes, until there are {LEAST_SIZES}"
            raise EngineFailed(f"was called at {len(sizes)} sizes only", field="parity", fix=fix)
        if constant := one.group.constant_axes():
            problem = f"{constant[0]} had one size in all calls, so that nothing proves that it can vary"
            raise EngineFailed(problem, field="parity", fix=f"add a request at which {constant[0]} differs")
        for call in one.cases():
            found = one.run(call)
            for tensor in one.variant.outputs:
                wanted, got = _plain(call.outputs, tensor), _plain(found, tensor)
                row = compare(case_name(one.group, call), tensor.name, wanted, got)
                rows.append(_mask(row) if _equal_whole(wanted, got) and len(one.variant.outputs) > 1 else row)
    worst = max(rows, key=lambda row: row.relative)
    if not worst.relative <= tolerance:
        what = worst.reason or f"differs by {worst.relative:.2e} of the output's scale, {tolerance:.0e} is allowed"
        raise EngineFailed(
            f"parity failed at {worst.case}: {worst.output}: {what}",
            field="parity",
            fix="nothing was published; use another precision, or mend the declaration of the part",
        )
    return rows


def _equal_whole(wanted: NDArray[np.generic], found: NDArray[np.generic]) -> bool:
    return wanted.dtype.kind in "biu" and wanted.dtype == found.dtype and np.array_equal(wanted, found)


def _mask(row: ParityRow) -> ParityRow:
    """Equal whole numbers beside other outputs: they may be constant, as a mask that lets all be seen."""
    return row.model_copy(update={"relative": 0.0, "reason": ""})


def timing(
    source: Source, loaded: Sequence[Loaded], others: Mapping[Runner, Sequence[Loaded]], name: Runner
) -> list[TimingRow]:
    """Median milliseconds of torch eager, of other published precisions and of this one, in turns, warm.

    Args:
        source: with the module.
        loaded: the new files.
        others: published ones of the same variants, by name of the runner.
        name: of the new runner.
    """
    rows = []
    for index, one in enumerate(loaded):
        flat = Flat(source.module, one.group)
        for call in {call.sizes: call for call in reversed(one.cases())}.values():
            runners: dict[Runner, Run] = {"torch": partial(_run_torch, flat, one.group, call)}
            runners |= {other: partial(files[index].run, call) for other, files in others.items()}
            runners[name] = partial(one.run, call)
            ms, rounds = _in_turns(runners)
            file = one.variant.file if len(loaded) > 1 else ""
            case, batch = case_name(one.group, call), sizes_of(one.group, call).get(BATCH)
            rows.append(TimingRow(case=case, rounds=rounds, ms=ms, variant=file, batch=batch))
    return rows


def _run_torch(flat: Flat, group: Group, call: RecordedCall) -> Tensors:
    return run_flat(flat, group, feed(group, call))


def _in_turns(runners: Mapping[Runner, Run]) -> tuple[dict[Runner, float], int]:
    torch.set_num_threads(THREADS)
    taken: dict[Runner, list[float]] = {name: [] for name in runners}
    for run in runners.values():
        run()
    began, rounds = time.perf_counter(), 0
    while rounds < ROUNDS and (rounds < 3 or time.perf_counter() - began < CASE_SECONDS):  # noqa: PLR2004
        for name, run in runners.items():
            started = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - started)
        rounds += 1
    return {name: round(median(seconds) * 1000, 4) for name, seconds in taken.items()}, rounds


def _plain(tensors: Tensors, tensor: PartTensor) -> NDArray[np.generic]:
    """As the file has it, half precision as float32."""
    value = tensors[tensor.name].reshape(1) if tensor.scalar else tensors[tensor.name]
    return np.asarray((value.float() if value.is_floating_point() else value).numpy())
