"""A render replica's surroundings: a store, scratch space, and engines as a replica would load them."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from serving.artifacts.store import ArtifactStore
from serving.backends.base import Engine, EngineContext
from serving.backends.ray.engines import load_engine
from serving.media.ffmpeg import VideoWriter
from serving.protocol.artifact import ArtifactRef
from serving.repository.load import load_repository
from serving.repository.model import Source
from tests.servers.tiny import context_in, tiny_engine, tiny_model

MODELS = Path(__file__).parents[5] / "model_repository"


class Studio:
    """Puts test media into a store and loads builtin engines over it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self.store = ArtifactStore(f"file://{folder}/store", folder / "cache")

    def engine(self, model: str) -> Engine:
        """The engine of a model of the project's own repository."""
        context = EngineContext(self.store, self.scratch, threads=2)
        return load_engine(load_repository([MODELS]).get(model), context)

    async def sound(self, samples: np.ndarray, name: str, rate: int = 22050) -> ArtifactRef:
        """Samples as a stored WAV."""
        soundfile.write(self.folder / name, samples, rate)
        return await self.store.put_file(self.folder / name, media_type="audio/wav")

    async def clip(
        self, name: str, frames: int, paint: Callable[[int], int | np.ndarray], size: tuple[int, int] = (320, 240)
    ) -> ArtifactRef:
        """A clip whose frames ``paint`` gives, as a grey value or as a BGR picture."""
        path = self.folder / name
        with VideoWriter(path, *size, 25) as video:
            for number in range(frames):
                shade = paint(number)
                frame = np.full((size[1], size[0], 3), shade, np.uint8) if isinstance(shade, int) else shade
                video.write(frame)
        return await self.store.put_file(path, media_type="video/mp4")

    async def text(self, text: str, name: str) -> ArtifactRef:
        """A stored text file."""
        return await self.store.put_bytes(text.encode(), media_type="text/plain", name=name)


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    """A studio of this test's own."""
    return Studio(tmp_path)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the engine of a module keeps what its requests bring and get."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def damaged(tmp_path: Path) -> Callable[..., Any]:
    """Loads a model from a copy of its tiny checkpoint that something was done to."""

    def load(name: str, damage: Callable[[Path], object], allow_pickles: Sequence[str] = (), **card: Any) -> Engine:
        copy = tmp_path / "checkpoint"
        shutil.copytree(tiny_model(name).card.source.uri.removeprefix("file:"), copy)
        damage(copy)
        source = Source(uri=f"file:{copy}", allow_pickles=list(allow_pickles))
        return tiny_engine(name, context_in(tmp_path), source=source, **card)

    return load
