"""Mouth shapes over time, from phonemes and loudness; used by puppet's callers.

The one invariant: a track begins and ends at rest, so that clips join; lips are shut in at least one frame of every
m, b and p, however short.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from serving.backends.ray.engines.lipsync.arrays import Floats, smooth
from serving.backends.ray.engines.lipsync.visemes import (
    CLOSED,
    LABIODENTAL,
    PARTS,
    VOWELS,
    Viseme,
    is_stressed,
    letters,
    shapes,
)
from serving.protocol.tasks import Phoneme

REACH_S: Final = 0.055
"""How early a shape is prepared and how late it is left; lips lead the sound by about this much in natural speech."""

CLOSING_S: Final = 0.05
"""Time in which lips close for m, b, p, or reach the teeth for f, v."""

BEAT_EVERY_S: Final = 0.45
"""Least time between two beats of the head."""

EDGE_S: Final = 0.12
"""Time in which a clip leaves rest at its start and returns to it at its end."""

_REST_WEIGHT: Final = 0.035
_JAW, _WIDTH, _POUT, _UPPER, _TUCK, _PRESS, _TEETH, _TONGUE = range(len(PARTS))


def mouth_track(phonemes: Sequence[Phoneme], loudness: Floats, fps: int) -> Floats:
    """Shape of the mouth in every frame.

    Args:
        phonemes: with times in seconds from the clip's start; none gives rest throughout.
        loudness: float32 ``(frames,)`` in 0..1, see :func:`frame_loudness`.
        fps: frames a second.

    Returns:
        float32 ``(frames, 8)``, columns in the order of :data:`visemes.PARTS`.
    """
    frames = len(loudness)
    times = (np.arange(frames, dtype=np.float32) + 0.5) / fps
    track = _blend(_units(phonemes), times)
    track[:, _JAW] *= 0.45 + 0.75 * loudness
    track *= edge_window(frames, fps, EDGE_S)[:, None]
    _shut(track, _holds(phonemes, times, CLOSED, fps))
    _bite(track, _holds(phonemes, times, LABIODENTAL, fps))
    return track


def frame_loudness(features: Floats | None, frames: int, fps: int, offset_s: float = 0.0) -> Floats:
    """Loudness of speech in every frame, 0 (pause) to 1 (loud vowel), relative to the clip itself.

    Args:
        features: float32 ``(n, 80)`` log-mel, 100 a second, or None, which gives 0.75 throughout.
        frames: frames of the clip.
        fps: frames a second.
        offset_s: where in the clip the first feature lies.
    """
    if features is None or len(features) == 0:
        return np.full(frames, 0.75, np.float32)
    # Bands 3..40 of 80 hold about 100 to 2500 Hz: voicing and the first two formants.
    energy = features[:, 3:40].mean(axis=1)
    quiet, loud = np.percentile(energy, (10, 92))
    level = np.clip((energy - quiet) / max(float(loud - quiet), 0.15), 0.0, 1.0)
    level = np.convolve(np.pad(level, 3, mode="edge"), np.hanning(9)[1:-1] / 4.0, mode="valid")
    times = (np.arange(frames) + 0.5) / fps - offset_s
    return np.interp(times, np.arange(len(level)) / 100.0, level, left=0.0, right=0.0).astype(np.float32)


def speaking_window(phonemes: Sequence[Phoneme], frames: int, fps: int) -> Floats:
    """How much of a speaker's liveliness each frame has: float32 ``(frames,)``, 0 at both ends and without phonemes."""
    if not phonemes:
        return np.zeros(frames, np.float32)
    times = np.arange(frames, dtype=np.float32) / fps
    start = min(p.start_s for p in phonemes)
    end = max(p.end_s for p in phonemes)
    window = smooth((times - start + 0.35) / 0.4) * smooth((end + 0.45 - times) / 0.5)
    return (window * edge_window(frames, fps, 0.4)).astype(np.float32)


def stresses(phonemes: Sequence[Phoneme], loudness: Floats, fps: int) -> list[float]:
    """Times in seconds of stressed vowels: as marked, else the loudest and longest; never closer than
    BEAT_EVERY_S.
    """
    vowels = [p for p in phonemes if any(letter in VOWELS for letter in letters(p.symbol))]
    marked = [p for p in vowels if is_stressed(p.symbol)] or vowels
    last = len(loudness) - 1

    def force(p: Phoneme) -> float:
        return float(loudness[min(int(p.start_s * fps), last)]) + 2.0 * (p.end_s - p.start_s)

    chosen: list[float] = []
    for phoneme in sorted(marked, key=force, reverse=True):
        if all(abs(phoneme.start_s - other) >= BEAT_EVERY_S for other in chosen):
            chosen.append(phoneme.start_s)
    return sorted(chosen)


def edge_window(frames: int, fps: int, fade_s: float) -> Floats:
    """1 inside a clip, falling smoothly to 0 just outside its first and last frame."""
    index = np.arange(frames, dtype=np.float32)
    inside = np.minimum(index + 0.5, frames - index - 0.5) / fps
    return smooth(inside / fade_s)


def _units(phonemes: Sequence[Phoneme]) -> list[tuple[float, float, Viseme]]:
    """Phonemes as shapes with times; a diphthong or affricate shares its time among its parts."""
    units: list[tuple[float, float, Viseme]] = []
    for phoneme in phonemes:
        parts = shapes(phoneme.symbol)
        step = (phoneme.end_s - phoneme.start_s) / max(len(parts), 1)
        units += [(phoneme.start_s + k * step, phoneme.start_s + (k + 1) * step, s) for k, s in enumerate(parts)]
    return units


def _blend(units: list[tuple[float, float, Viseme]], times: Floats) -> Floats:
    """Weighted mean of all shapes at each time (dominance functions, Cohen and Massaro 1993)."""
    total = np.full(len(times), _REST_WEIGHT, np.float32)
    track = np.zeros((len(times), len(PARTS)), np.float32)
    for start, end, shape in units:
        # The core of a unit is its middle half; around it, its influence falls like a Gaussian.
        quarter = (end - start) / 4
        away = np.maximum(np.maximum(start + quarter - times, times - end + quarter), 0.0)
        weight = shape.weight * np.exp(-((away / (REACH_S + quarter * 0.5)) ** 2))
        total += weight
        track += weight[:, None] * np.asarray(shape[:-1], np.float32)
    return track / total[:, None]


def _holds(phonemes: Sequence[Phoneme], times: Floats, wanted: frozenset[str], fps: int) -> Floats:
    """0..1 per frame: how fully the lips must hold the closure of one of the ``wanted`` phonemes."""
    hold = np.zeros(len(times), np.float32)
    for phoneme in phonemes:
        if any(letter in wanted for letter in letters(phoneme.symbol)):
            middle = (phoneme.start_s + phoneme.end_s) / 2
            half = max(0.3 * (phoneme.end_s - phoneme.start_s), 0.5 / fps + 1e-3)
            np.maximum(hold, smooth(1.0 - (np.abs(times - middle) - half) / CLOSING_S), out=hold)
    return hold


def _shut(track: Floats, hold: Floats) -> None:
    for part in (_JAW, _UPPER, _TUCK, _TEETH, _TONGUE):
        track[:, part] *= 1.0 - hold
    track[:, _PRESS] = np.maximum(track[:, _PRESS] * hold, hold)


def _bite(track: Floats, hold: Floats) -> None:
    track[:, _JAW] += hold * (np.minimum(track[:, _JAW], 0.14) - track[:, _JAW])
    track[:, _TUCK] = np.maximum(track[:, _TUCK], hold * (1.0 - track[:, _PRESS]))
