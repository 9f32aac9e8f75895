"""Recordings and exports of a family's tiny model, for the tests of what the family declares."""

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from optimize.parts import gates
from optimize.parts.build import Source
from optimize.parts.part import Family, find_family
from optimize.parts.precision import check_weights
from optimize.parts.record import Recording, open_store, recorded
from optimize.parts.samples import Samples
from optimize.parts.variants import Group
from optimize.parts.whole import check_whole
from optimize.parts.work import kept_build
from optimize.report import ParityRow, QualityRow
from serving.backends.ray.parts.chosen import weights_digest
from serving.backends.ray.tiny.build import tiny_model_folder
from serving.protocol.tasks import TaskRequest, TaskResult
from serving.repository.load import load_repository
from serving.repository.part_file import PartFile, Precision, read_part
from serving.settings import Settings
from serving.weights.cache import WeightsCache

MODELS = Path(__file__).parents[3] / "model_repository"


class Recorded:
    """A model's requests as its family has them, with the engine that answered them.

    Args:
        runner: of the loop that the engine lives in.
        recording: of all parts.
    """

    def __init__(self, runner: asyncio.Runner, recording: Recording) -> None:
        self._runner, self.recording = runner, recording

    def groups(self, name: str) -> list[Group]:
        """Of a part, after its weights were looked at."""
        source = source_of(self.recording, name)
        check_weights(source.module, name)
        return source.groups()

    def gated(self, name: str, part: PartFile, folder: Path) -> tuple[list[ParityRow], list[QualityRow]]:
        """Parity within the part's bound at every case, and whole results with the part swapped in."""
        source = source_of(self.recording, name)
        loaded = gates.load(source, part, folder)
        try:
            rows = gates.check_parity(loaded, source.part.tolerance(part.precision))
            return rows, self._runner.run(check_whole(self.recording, source.module, part, loaded))
        finally:
            for one in loaded:
                one.runner.close()

    def again(self) -> list[TaskResult]:
        """What the engine answers now."""
        return self._runner.run(self.recording.again())


@contextmanager
def recorded_family(model: str, scratch: Path) -> Iterator[Recorded]:
    """Ask a tiny model all that its family asks."""
    repository = scratch / "models"
    tiny_model_folder(load_repository([MODELS]).get(model), repository)
    found = load_repository([repository]).get(model)
    family = find_family(model, found.card)
    store, weights = open_store(scratch), WeightsCache.of(Settings(home=scratch / "home"))
    with asyncio.Runner() as runner:
        requests = runner.run(asked(family, Samples(found.card, store)))
        opened = recorded(found, family.parts, requests, store, weights, scratch)
        recording = runner.run(opened.__aenter__())
        try:
            yield Recorded(runner, recording)
        finally:
            runner.run(opened.__aexit__(None, None, None))


async def asked(family: Family, samples: Samples) -> Sequence[TaskRequest]:
    """A family's requests."""
    return await family.requests(samples)


def source_of(recording: Recording, name: str) -> Source:
    """What a part is exported from."""
    model = recording.engine.model
    part = find_family(model.name, model.card).parts[name]
    digest = weights_digest(recording.engine)
    return Source(model.name, name, part, recording.module(part), recording.calls[name], digest)


def export_part(recording: Recording, name: str, folder: Path, precision: Precision = "fp32") -> PartFile:
    """Export a part as `reelmesh optimize` does, into an existing folder; once a machine for the same sources."""
    kept = kept_build(
        source_of(recording, name), precision, recording.requests, recording.engine.model.card, notify=lambda step: None
    )
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    return read_part(folder)
