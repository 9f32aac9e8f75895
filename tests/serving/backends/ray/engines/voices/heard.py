"""Engines of voices and music at work on tiny checkpoints, and what they said, as samples."""

from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile

from serving.artifacts.store import ArtifactStore
from serving.backends.call import Call
from serving.backends.ray.engines.network.engine import NetworkEngine
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import MusicRequest, MusicResult, SpeechRequest, SpeechResult
from serving.settings import Settings


async def say(engine: NetworkEngine, text: str, call: Call | None = None, **fields: object) -> SpeechResult:
    voice = next(iter(engine.model.card.voices))
    language = engine.model.card.languages[0]
    request = SpeechRequest.model_validate({"text": text, "voice": voice, "language": language, **fields})
    result = await engine.run(request, call or Call())
    assert isinstance(result, SpeechResult)
    return result


async def play(engine: NetworkEngine, prompt: str, call: Call | None = None, **fields: object) -> MusicResult:
    request = MusicRequest.model_validate({"prompt": prompt, "duration_s": 1, **fields})
    result = await engine.run(request, call or Call())
    assert isinstance(result, MusicResult)
    return result


async def samples_of(folder: Path, audio: ArtifactRef) -> tuple[np.ndarray, soundfile._SoundFileInfo]:
    """16-bit samples as integers, and the file's kind."""
    wav = await ArtifactStore.of(Settings(home=folder).resolved()).get_bytes(audio)
    return soundfile.read(BytesIO(wav), dtype="int16")[0].astype(int), soundfile.info(BytesIO(wav))


class Stop:
    """Cancels a call at its first sign of progress."""

    def __init__(self) -> None:
        self.call, self.told = Call(), list[float]()
        self.call.on_progress = self._hear

    def _hear(self, done: float) -> None:
        self.told.append(done)
        self.call.cancel()
