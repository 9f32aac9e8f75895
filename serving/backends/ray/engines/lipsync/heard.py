"""Mouth shapes from sound alone: what a recording without known phonemes shows a viewer; used by the lip-sync engine.

The one invariant: no language plays a part: energy and where in the spectrum it lies decide, so any speech moves lips.
"""

from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.backends.ray.engines.lipsync.arrays import Floats
from serving.protocol.tasks import Phoneme

HOP_S: Final = 0.01
"""Features come 100 a second."""

SILENCE: Final = 0.12
"""Level (0 the quietest, 1 the loudest tenth) under which nobody speaks."""

DIP: Final = 0.42
"""Level under which speech is taken for a consonant."""

LEAST_FRAMES: Final = 3
"""Shorter runs join what stands before them: 30 ms are as short as the shortest phonemes are seen."""

_LOW: Final = slice(3, 17)
"""Mel bands of about 100 to 520 Hz: voicing, and the first formant of close vowels."""
_OPEN: Final = slice(17, 32)
"""520 to 1250 Hz: the first formant of open vowels, the second of rounded ones."""
_SPREAD: Final = slice(40, 56)
"""1750 to 3300 Hz: the second formant of front vowels."""
_HISS: Final = slice(62, 80)
"""Over 4 kHz: fricatives."""

_PAUSE: Final = ""


def heard_phonemes(features: Floats, offset_s: float = 0.0) -> list[Phoneme]:
    """Phonemes that look as the sound does; not what was said.

    Against mouths moved by true phonemes (builtin voices, English, Hindi, Spanish and German, one line each) the jaw
    follows with a correlation of 0.47 to 0.78 and opens as far on average; lips meet as often, but seldom on the same
    m.

    Args:
        features: float32 ``(n, 80)`` log-mel, 100 a second.
        offset_s: where in the clip the first feature lies.
    """
    symbols = _joined(_symbols(features))
    phonemes: list[Phoneme] = []
    at = 0
    for symbol, run in groupby(symbols):
        length = len(list(run))
        if symbol != _PAUSE:
            start_s = offset_s + at * HOP_S
            phonemes.append(Phoneme(symbol=symbol, start_s=start_s, end_s=start_s + length * HOP_S))
        at += length
    return phonemes


def _symbols(features: Floats) -> list[str]:
    """One symbol for each feature."""
    if not len(features):
        return []
    energy = features[:, 3:62].mean(axis=1)
    quiet, loud = np.percentile(energy, (5, 95))
    level = np.clip((energy - quiet) / max(float(loud - quiet), 0.15), 0.0, 1.0)
    low, opened, spread, hiss = (features[:, band].mean(axis=1) for band in (_LOW, _OPEN, _SPREAD, _HISS))
    front, openness, murmur = spread - opened, opened - low, low - features[:, 17:62].mean(axis=1)
    speech, voiced = level > SILENCE, level > DIP
    # Speakers and microphones differ in tone, so a sound is judged against the rest of its own recording.
    is_front, is_open = front > _share(front, voiced, 0.5), openness > _share(openness, voiced, 0.35)
    symbols = np.full(len(features), _PAUSE, dtype="<U1")
    symbols[speech] = "k"
    symbols[voiced] = np.where(is_open, np.where(is_front, "e", "ə"), np.where(is_front, "ɪ", "ʊ"))[voiced]
    symbols[voiced & (openness > _share(openness, voiced, 0.75))] = "ʌ"
    symbols[speech & (murmur > _share(murmur, speech, 0.92))] = "m"
    symbols[speech & (hiss > low)] = "s"
    return [str(symbol) for symbol in symbols]


def _joined(symbols: list[str]) -> list[str]:
    """Runs too short to be seen take the symbol before them."""
    joined: list[str] = []
    for symbol, run in groupby(symbols):
        length = len(list(run))
        joined += [symbol if length >= LEAST_FRAMES or not joined else joined[-1]] * length
    return joined


def _share(values: Floats, of: NDArray[np.bool_], share: float) -> float:
    """The value that ``share`` of the chosen ones lie under."""
    return float(np.quantile(values[of], share)) if of.any() else 0.0
