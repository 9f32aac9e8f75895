"""One engine on its tiny checkpoint, with a store for what requests bring and get; used by the tests of families.

The one invariant: nothing of it stays on the disk, whether it was closed or not.
"""

import atexit
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pytest_asyncio
import soundfile

from serving.backends.ray.engines.network.engine import NetworkEngine
from serving.protocol.artifact import ArtifactRef
from tests.servers.tiny import context_in, tiny_engine

E = TypeVar("E", bound=NetworkEngine[Any, Any, Any])


def engine_of(model: str, kind: type[E], **card: Any) -> Callable[..., AsyncIterator[E]]:
    """A fixture: the model's engine, for all tests of a module; its store lies in ``home``."""

    @pytest_asyncio.fixture(scope="module", loop_scope="module")
    async def engine(home: Path) -> AsyncIterator[E]:
        engine = tiny_engine(model, context_in(home), **card)
        assert isinstance(engine, kind)
        yield engine
        await engine.close()

    return engine


class Place(Generic[E]):
    """An engine of that kind, and the folder that all of it is in."""

    def __init__(self, model: str, kind: type[E], **card: Any) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"{model}-"))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)  # engines that do not load are closed by nobody
        self.context = context_in(self.folder)
        engine = tiny_engine(model, self.context, **card)
        assert isinstance(engine, kind)
        self.engine = engine

    async def sound(self, samples: np.ndarray, rate_hz: int = 16_000, subtype: str = "PCM_16") -> ArtifactRef:
        """Samples that a request can refer to."""
        path = self.folder / "sound.wav"
        soundfile.write(path, samples, rate_hz, subtype=subtype)
        return await self.context.artifacts.put_file(path, media_type="audio/wav")

    async def close(self) -> None:
        """Free the network and the disk."""
        await self.engine.close()
        shutil.rmtree(self.folder)
