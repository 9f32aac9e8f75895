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


def speech(engine: NetworkEngine, text: str, **fields: object) -> SpeechRequest:
    """By the card's first voice in its first language, unless fields say otherwise."""
    usual = {"voice": next(iter(engine.model.card.voices)), "language": engine.model.card.languages[0]}
    return SpeechRequest.model_validate({"text": text, **usual, **fields})


async def say(engine: NetworkEngine, text: str, **fields: object) -> SpeechResult:
    result = await engine.run(speech(engine, text, **fields), Call())
    assert isinstance(result, SpeechResult)
    return result


async def play(engine: NetworkEngine, prompt: str, **fields: object) -> MusicResult:
    result = await engine.run(MusicRequest.model_validate({"prompt": prompt, "duration_s": 1, **fields}), Call())
    assert isinstance(result, MusicResult)
    return result


async def samples_of(folder: Path, audio: ArtifactRef) -> tuple[np.ndarray, soundfile._SoundFileInfo]:
    """16-bit samples as integers, and the file's kind."""
    wav = await ArtifactStore.of(Settings(home=folder).resolved()).get_bytes(audio)
    return soundfile.read(BytesIO(wav), dtype="int16")[0].astype(int), soundfile.info(BytesIO(wav))
