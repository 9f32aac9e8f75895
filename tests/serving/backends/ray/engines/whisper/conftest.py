"""Both Whisper engines on one tiny network, and sounds for them."""

import atexit
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import pytest_asyncio
import soundfile

from serving.backends.call import Call
from serving.backends.ray.engines.network.runner import Ran
from serving.backends.ray.engines.whisper.engine import Sound, WhisperEngine
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import TranscriptionRequest, TranscriptionResult
from serving.repository.model import Source
from tests.servers.tiny import context_in, tiny_engine, tiny_model

RATE = 16_000


class Room:
    """One engine, a store of sounds, and what it hears in them."""

    def __init__(self, name: str, **card: Any) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="whisper-"))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)  # engines that do not load are closed by nobody
        self.context = context_in(self.folder)
        self.engine = cast(WhisperEngine, tiny_engine(name, self.context, **card))

    async def sound(self, samples: np.ndarray, subtype: str = "PCM_16") -> ArtifactRef:
        path = self.folder / "sound.wav"
        soundfile.write(path, samples, RATE, subtype=subtype)
        return await self.context.artifacts.put_file(path, media_type="audio/wav")

    async def hear(self, samples: np.ndarray, call: Call | None = None, **fields: Any) -> TranscriptionResult:
        audio = await self.sound(samples)
        result = await self.engine.run(TranscriptionRequest(audio=audio, **fields), call or Call())
        assert isinstance(result, TranscriptionResult)
        return result

    async def run(self, sound: Sound, call: Call | None = None) -> Ran:
        """Past the reading of files, so that several are there at once."""
        return await self.engine.runner.run(sound, call or Call(), self.engine.batch_key(sound))


def tones(seed: int, seconds: float) -> np.ndarray:
    """Half-second tones of random heights, each with a short rise and fall."""
    random = np.random.default_rng(seed)
    count = round(seconds * 2)
    time = np.arange(RATE // 2) / RATE
    shape = np.sin(np.pi * time / 0.5) ** 0.2
    parts = [0.3 * shape * np.sin(2 * np.pi * height * time) for height in random.uniform(150, 3000, count)]
    return np.concatenate(parts).astype(np.float32)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["whisper_large_v3", "whisper_transformers"])
async def room(request: pytest.FixtureRequest) -> AsyncIterator[Room]:
    room = Room(request.param)
    yield room
    await room.engine.close()
    shutil.rmtree(room.folder)


@pytest.fixture
def damaged(tmp_path: Path) -> Callable[[str, Callable[[Path], object]], WhisperEngine]:
    """Loads an engine from a copy of its checkpoint that something was done to."""

    def load(name: str, damage: Callable[[Path], object], **options: Any) -> WhisperEngine:
        copy = tmp_path / "checkpoint"
        shutil.copytree(tiny_model(name).card.source.uri.removeprefix("file:"), copy)
        damage(copy)
        return cast(
            WhisperEngine, tiny_engine(name, context_in(tmp_path), source=Source(uri=f"file:{copy}"), **options)
        )

    return load
