"""Loads a model's engine, runs requests through it and keeps what its parts were asked and what came out of it.

Called by optimize.parts.run. The one invariant: the engine is the one that serves, on the CPU in fp32.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from optimize.parts.part import Part
from optimize.threads import THREADS
from serving.artifacts.store import ArtifactStore
from serving.backends.base import EngineContext
from serving.backends.call import Call
from serving.backends.ray.engines import load_engine
from serving.backends.ray.parts.capture import RecordedCall, recording
from serving.backends.ray.parts.place import module_at
from serving.protocol.tasks import TaskRequest, TaskResult
from serving.repository.model import Model
from serving.weights.cache import WeightsCache

if TYPE_CHECKING:
    from torch import nn

    from serving.backends.ray.engines.network.engine import NetworkEngine


@dataclass(frozen=True)
class Recording:
    """What a model did with a few requests.

    Attributes:
        engine: loaded.
        store: with the requests' media and the results'.
        requests: that were asked.
        results: what came out, by torch alone.
        calls: of every part, by name.
    """

    engine: "NetworkEngine[TaskRequest, object, object]"
    store: ArtifactStore
    requests: Sequence[TaskRequest]
    results: Sequence[TaskResult]
    calls: Mapping[str, Sequence[RecordedCall]]

    def module(self, part: Part) -> "nn.Module":
        """Of a part."""
        return module_at(self.engine, part.at)

    async def again(self) -> list[TaskResult]:
        """The same requests once more, with whatever is swapped in now."""
        return [await self.engine.run(request, Call()) for request in self.requests]


def open_store(scratch: Path) -> ArtifactStore:
    """A store of this run's own."""
    return ArtifactStore(f"file://{scratch / 'store'}", scratch / "cache")


@asynccontextmanager
async def recorded(
    model: Model,
    parts: Mapping[str, Part],
    requests: Sequence[TaskRequest],
    store: ArtifactStore,
    weights: WeightsCache,
    scratch: Path,
) -> AsyncIterator[Recording]:
    """Load the engine, ask it everything, and keep it loaded as long as this is open.

    Args:
        model: its card's chosen parts are left out: torch is what others are measured by.
        parts: whose calls are wanted.
        requests: of the model's task.
        store: that holds their media.
        weights: the node's cache.
        scratch: an existing folder.

    Raises:
        ReelmeshError: whatever the engine raises.
    """
    (scratch / "engine").mkdir(exist_ok=True)
    context = EngineContext(store, scratch / "engine", threads=THREADS, precision="fp32", weights=weights)
    loaded = await asyncio.to_thread(load_engine, _bare(model), context)
    engine = cast("NetworkEngine[TaskRequest, object, object]", loaded)
    try:
        modules = {name: module_at(engine, part.at) for name, part in parts.items()}
        with recording(modules, {name: part.adapter for name, part in parts.items()}) as recorders:
            results = [await engine.run(request, Call()) for request in requests]
        calls = {name: recorder.calls for name, recorder in recorders.items()}
        yield Recording(engine, store, requests, results, calls)
    finally:
        await engine.close()


def _bare(model: Model) -> Model:
    card = model.card.model_copy(update={"optimized": {}, "precision": "fp32"})
    return Model(model.name, model.folder, card, model.config, model.versions)
