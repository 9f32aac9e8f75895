"""Both Whisper engines on one tiny network, and sounds for them."""

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from serving.backends.call import Call
from serving.backends.ray.engines.network.runner import Ran
from serving.backends.ray.engines.whisper.engine import Sound, WhisperEngine
from serving.backends.ray.engines.whisper.windows import windows
from serving.protocol.tasks import TranscriptionRequest, TranscriptionResult
from tests.serving.backends.ray.engines.place import Place

RATE = 16_000


class Room(Place[WhisperEngine]):
    """One engine, and what it hears in sounds."""

    def __init__(self, name: str, **card: Any) -> None:
        super().__init__(name, WhisperEngine, **card)

    async def request(self, samples: np.ndarray, **fields: Any) -> TranscriptionRequest:
        return TranscriptionRequest(audio=await self.sound(samples), **fields)

    async def hear(self, samples: np.ndarray, **fields: Any) -> TranscriptionResult:
        result = await self.engine.run(await self.request(samples, **fields), Call())
        assert isinstance(result, TranscriptionResult)
        return result

    async def run(self, sound: Sound, call: Call | None = None) -> Ran:
        return await run(self.engine, sound, call)


async def run(engine: WhisperEngine, sound: Sound, call: Call | None = None) -> Ran:
    """Past the reading of files, so that several are there at once."""
    return await engine.runner.run(sound, call or Call(), engine.batch_key(sound))


def sound_of(samples: np.ndarray, language: str | None = "en") -> Sound:
    """A prepared request."""
    return Sound(tuple(windows(samples)), language)


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
    await room.close()
