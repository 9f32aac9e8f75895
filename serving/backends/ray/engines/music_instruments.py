"""Waveforms of single notes; used by music_render alone.

The one invariant: every note starts and ends at zero and depends on its arguments alone.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.backends.ray.engines.music_score import Instrument

RATE_HZ: Final = 48_000
_LOW_HZ: Final = 200
_PICK_SOFTNESS: Final = 9
_HIGHEST_HZ: Final = 9000
Wave = NDArray[np.float32]


@functools.lru_cache(maxsize=256)
def note_wave(instrument: Instrument, pitch: int, length_ms: int) -> Wave:
    """float32 (samples,), peak about 1, of a note; at most 12 s."""
    count = min(length_ms, 12_000) * RATE_HZ // 1000
    frequency = 440.0 * 2 ** ((pitch - 69) / 12)
    wave = _PLAYERS[instrument](frequency, count).astype(np.float64)[:count]
    fade_in, fade_out = min(48, len(wave)), min(len(wave), max(480, len(wave) // 8))
    wave[:fade_in] *= np.linspace(0, 1, fade_in)
    wave[len(wave) - fade_out :] *= np.cos(np.linspace(0, np.pi / 2, fade_out)) ** 2
    return np.asarray(wave / max(np.abs(wave).max(initial=0.0), 1e-9), dtype=np.float32)


def _string(frequency: float, count: int) -> NDArray[np.float64]:
    """Karplus-Strong plucked string, one numpy operation per period; then resampled to the exact pitch."""
    period = max(8, round(RATE_HZ / frequency - 0.5))
    stretch = frequency * (period + 0.5) / RATE_HZ
    loops = int(count * stretch) // period + 2
    decay = 0.5 ** (1 / (frequency * (0.9 if frequency > _LOW_HZ else 1.5)))
    random = np.random.default_rng(round(frequency * 16))
    burst = random.uniform(-1, 1, period)
    for _ in range(_PICK_SOFTNESS):
        burst = 0.5 * (burst + np.roll(burst, 1))
    burst -= np.roll(burst, max(1, period // 5)) * 0.9
    out = np.empty((loops, period))
    out[0] = burst - burst.mean()
    for index in range(1, loops):
        last = out[index - 1]
        before = out[index - 2, -1] if index > 1 else 0.0
        out[index, 1:] = 0.5 * decay * (last[1:] + last[:-1])
        out[index, 0] = 0.5 * decay * (last[0] + before)
    flat = out.reshape(-1)
    wave = np.interp(np.arange(count) * stretch, np.arange(len(flat)), flat)
    wave -= wave.mean()
    return np.asarray(wave, dtype=np.float64)


def _partials(frequency: float, count: int, highest: int) -> tuple[NDArray[np.float64], list[int]]:
    time = np.arange(count) / RATE_HZ
    return time, [k for k in range(1, highest + 1) if k * frequency < _HIGHEST_HZ]


def _drone(frequency: float, count: int) -> NDArray[np.float64]:
    """A tanpura string: its bridge lets the overtones bloom one after the other, from high to low."""
    time, numbers = _partials(frequency, count, 16)
    wave = np.zeros(count)
    for k in numbers:
        bloom = 0.9 * np.exp(-(((np.log2(k) - 3.2 + 1.5 * time) / 1.1) ** 2))
        level = (0.35 + bloom) / k**0.75 * np.exp(-time * (0.45 + 0.06 * k))
        wave += level * np.sin(2 * np.pi * k * frequency * (1 + 1.5e-5 * k * k) * time + k)
    return np.asarray(wave * (1 - np.exp(-time / 0.006)))


def _bass(frequency: float, count: int) -> NDArray[np.float64]:
    """A soft plucked bass."""
    time, numbers = _partials(frequency, count, 5)
    wave = np.zeros(count)
    for k in numbers:
        wave += np.sin(2 * np.pi * k * frequency * time) * np.exp(-time * (1.1 + 1.3 * k)) / k**1.4
    return np.asarray(wave * (1 - np.exp(-time / 0.012)))


def _pad(frequency: float, count: int) -> NDArray[np.float64]:
    """Slow strings: two slightly detuned rows of overtones under a swell."""
    time, numbers = _partials(frequency, count, 7)
    wave = np.zeros(count)
    for k in numbers:
        for detune in (-0.0019, 0.0017):
            wave += np.sin(2 * np.pi * k * frequency * (1 + detune) * time + 1.7 * k * (detune > 0)) / k**1.8
    swell = np.minimum(1.0, time / max(0.3, min(1.4, 0.25 * count / RATE_HZ)))
    release = np.minimum(1.0, (count / RATE_HZ - time) / max(0.05, min(1.6, 0.3 * count / RATE_HZ)))
    return np.asarray(wave * np.sin(swell * np.pi / 2) ** 2 * np.sin(np.clip(release, 0, 1) * np.pi / 2) ** 2)


def _low_drum(_: float, count: int) -> NDArray[np.float64]:
    """The left hand of a tabla: a gliding tone."""
    time = np.arange(min(count, RATE_HZ // 2)) / RATE_HZ
    phase = 2 * np.pi * (78 * time + 34 * 0.05 * (1 - np.exp(-time / 0.05)))
    return np.asarray(np.sin(phase) * np.exp(-time / 0.13) * (1 - np.exp(-time / 0.003)))


def _high_drum(_: float, count: int) -> NDArray[np.float64]:
    """The right hand: a ringing rim."""
    time = np.arange(min(count, RATE_HZ // 3)) / RATE_HZ
    rows = ((312, 1.0, 0.09), (624, 0.5, 0.06), (945, 0.3, 0.04), (1260, 0.15, 0.03))
    ring = np.sum([a * np.sin(2 * np.pi * f * time) * np.exp(-time / d) for f, a, d in rows], axis=0)
    return np.asarray(ring * (1 - np.exp(-time / 0.001)))


def _shaker(_: float, count: int) -> NDArray[np.float64]:
    """Seeds in a gourd: soft filtered noise."""
    time = np.arange(min(count, RATE_HZ // 8)) / RATE_HZ
    noise = np.random.default_rng(5).standard_normal(len(time) + 4)
    high = noise[4:] - noise[2:-2] + 0.5 * (noise[3:-1] - noise[1:-3])
    return np.asarray(high * np.minimum(time / 0.012, 1) * np.exp(-time / 0.028))


def _boom(_: float, count: int) -> NDArray[np.float64]:
    """A large drum far away."""
    time = np.arange(min(count, 2 * RATE_HZ)) / RATE_HZ
    phase = 2 * np.pi * (47 * time + 40 * 0.04 * (1 - np.exp(-time / 0.04)))
    skin = np.convolve(np.random.default_rng(9).standard_normal(len(time)), np.hanning(160) / 40, "same")
    body = np.sin(phase) * np.exp(-time / 0.45) + 0.35 * skin * np.exp(-time / 0.05)
    return np.asarray(body * (1 - np.exp(-time / 0.004)))


_PLAYERS: Final[Mapping[Instrument, Callable[[float, int], NDArray[np.float64]]]] = {
    "string": _string,
    "bass": _bass,
    "drone": _drone,
    "pad": _pad,
    "low_drum": _low_drum,
    "high_drum": _high_drum,
    "shaker": _shaker,
    "boom": _boom,
}
