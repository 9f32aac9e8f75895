"""The task-level gate: the whole model's results with an exported part in the place of its module.

Called by optimize.parts.run. The one invariant: the engine is afterwards as it was, whatever happened.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from optimize.parts.gates import Loaded
from optimize.parts.record import Recording
from optimize.quality import BOUNDS, compare
from optimize.report import QualityRow
from serving.backends.ray.parts.swap import Swapped
from serving.errors import EngineFailed
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import TaskResult
from serving.repository.part_file import PartFile


@contextmanager
def standing_in(module: nn.Module, part: PartFile, loaded: Sequence[Loaded]) -> Iterator[Swapped]:
    """Let files answer for a module that keeps its numbers."""
    before = module.__dict__.get("forward")
    swapped = Swapped(module, part, [one.runner for one in loaded])
    module.forward = swapped
    try:
        yield swapped
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


async def check_whole(
    recording: Recording, module: nn.Module, part: PartFile, loaded: Sequence[Loaded]
) -> list[QualityRow]:
    """Ask every recorded request again with the part swapped in, and compare what comes out.

    Returns:
        Of every measure the worst of all requests.

    Raises:
        EngineFailed: a result is further from torch's than the precision's bounds allow, or the part was never asked.
    """
    with standing_in(module, part, loaded) as swapped:
        found = await recording.again()
    if not swapped.calls:
        raise EngineFailed("the engine never called the part", field="quality")
    rows = await _compared(recording, found, part)
    if failed := [row for row in rows if not row.passed]:
        first = failed[0]
        what = first.reason or f"{first.value:.4g} {first.unit}, {first.bound:.4g} is allowed"
        raise EngineFailed(
            f"the whole model's result differs too much: {first.measure}: {what}",
            field="quality",
            fix="nothing was published; use another precision",
        )
    return rows


async def _compared(recording: Recording, found: Sequence[TaskResult], part: PartFile) -> list[QualityRow]:
    task, bounds = recording.engine.model.card.task, BOUNDS[part.precision]
    worst: dict[str, QualityRow] = {}
    for expected, other in zip(recording.results, found, strict=True):
        paths = await _paths(recording, expected, other)
        for row in await asyncio.to_thread(compare, task, expected, other, paths.__getitem__, bounds):
            known = worst.get(row.measure)
            if known is None or _badness(row) > _badness(known):
                worst[row.measure] = row
    return list(worst.values())


async def _paths(recording: Recording, *results: TaskResult) -> Mapping[ArtifactRef, Path]:
    refs = [value for result in results for _, value in result if isinstance(value, ArtifactRef)]
    return {ref: await recording.store.local_path(ref) for ref in refs}


def _badness(row: QualityRow) -> tuple[bool, float]:
    return (not row.passed, row.value if row.better == "lower" else -row.value)
