"""Spoken pieces joined into one sound with its words, and its file; used by the engines of neural voices.

The one invariant: every sample is a finite number, and words stand where they are heard.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.backends.ray.engines.audio_signal import wav_bytes
from serving.backends.ray.engines.network.engine import Written
from serving.errors import EngineFailed
from serving.protocol.tasks import Word

LEAD_S: Final = 0.06
TAIL_S: Final = 0.2
"""Silence before the first and after the last piece, so that players and codecs cut nothing off."""


@dataclass(frozen=True, slots=True)
class SpokenPiece:
    """The sound of one piece.

    Attributes:
        samples: float32 ``(samples,)``, -1 to 1.
        words: with times from the piece's start; empty where the network tells none.
        pause_s: silence after it.
    """

    samples: NDArray[np.float32]
    words: tuple[Word, ...]
    pause_s: float


@dataclass(frozen=True, slots=True)
class Speech:
    """A whole answer: float32 ``(samples,)`` at ``rate_hz``, and its words."""

    samples: NDArray[np.float32]
    rate_hz: int
    words: tuple[Word, ...]


def join(pieces: Sequence[SpokenPiece], rate_hz: int) -> Speech:
    """Lay pieces one after the other, with their pauses."""
    parts: list[NDArray[np.float32]] = [np.zeros(round(LEAD_S * rate_hz), np.float32)]
    words: list[Word] = []
    length = parts[0].size
    for piece in pieces:
        offset_s = length / rate_hz
        words += [
            Word(text=word.text, start_s=round(word.start_s + offset_s, 3), end_s=round(word.end_s + offset_s, 3))
            for word in piece.words
        ]
        parts += [piece.samples, np.zeros(round(piece.pause_s * rate_hz), np.float32)]
        length += parts[-2].size + parts[-1].size
    parts.append(np.zeros(round(TAIL_S * rate_hz), np.float32))
    return Speech(np.concatenate(parts), rate_hz, tuple(words))


def check_finite(samples: NDArray[np.float32], model: str) -> NDArray[np.float32]:
    """Samples of a network, if they are sound.

    Raises:
        EngineFailed: there are none, or some are no numbers.
    """
    if not samples.size or not np.isfinite(samples).all():
        fix = "check the weights; with fp16 try bf16 or fp32"
        raise EngineFailed(f"{model}: the network made {samples.size} samples that are not sound", fix=fix)
    return np.clip(samples, -1.0, 1.0)


def write_speech(speech: Speech, folder: Path) -> Written:
    """Mono 16-bit WAV."""
    path = folder / "speech.wav"
    path.write_bytes(wav_bytes(speech.samples, speech.rate_hz))
    duration_s = speech.samples.size / speech.rate_hz
    values = {"sample_rate_hz": speech.rate_hz, "duration_s": duration_s, "words": list(speech.words)}
    return Written(values, {"audio": (path, "audio/wav")})
