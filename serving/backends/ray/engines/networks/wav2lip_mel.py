"""The sound as Wav2Lip and SadTalker hear it: mel spectrum and one window of it for each video frame; used by both.

The one invariant: pure numpy functions whose numbers are those of librosa with these parameters (and the padding by
reflection that librosa had when the weights were trained), so that published weights hear what they were trained on.
"""

import functools
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SAMPLE_RATE_HZ: Final = 16_000
FFT: Final = 800
"""Samples of a frame and of its Hann window: 50 ms."""

HOP: Final = 200
"""Samples from frame to frame: 80 frames a second."""

BANDS: Final = 80
LOWEST_HZ: Final = 55.0
HIGHEST_HZ: Final = 7600.0
PREEMPHASIS: Final = 0.97
FLOOR_DB: Final = -100.0
REFERENCE_DB: Final = 20.0
RANGE: Final = 4.0
"""Values lie between minus and plus this."""

WINDOW_FRAMES: Final = 16
FRAMES_PER_SECOND: Final = SAMPLE_RATE_HZ / HOP
_CHUNK_FRAMES: Final = 4096
"""Frames transformed at once, so that an hour of sound needs no more memory than its result and 50 MB."""


def mel_spectrum(samples: Floats) -> Floats:
    """Normalised mel spectrum of (samples,) at 16 kHz: (80, 1 + samples // 200), -4 to 4.

    Raises:
        ValueError: fewer than 401 samples, which cannot be padded by reflection.
    """
    if len(samples) <= FFT // 2:
        raise ValueError(f"{len(samples)} samples are too few for a frame of {FFT}")
    emphasised = np.empty(len(samples), np.float32)
    emphasised[0] = samples[0]
    emphasised[1:] = samples[1:] - PREEMPHASIS * samples[:-1]
    padded = np.pad(emphasised, FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::HOP]
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)).astype(np.float32)
    filters = mel_filters()
    parts = [
        filters @ np.abs(np.fft.rfft(frames[start : start + _CHUNK_FRAMES] * window)).T.astype(np.float32)
        for start in range(0, len(frames), _CHUNK_FRAMES)
    ]
    level = 20 * np.log10(np.maximum(10 ** (FLOOR_DB / 20), np.concatenate(parts, axis=1))) - REFERENCE_DB
    scaled = 2 * RANGE * (level - FLOOR_DB) / -FLOOR_DB - RANGE
    return np.clip(scaled, -RANGE, RANGE).astype(np.float32)


@functools.lru_cache(maxsize=1)
def mel_filters() -> Floats:
    """Slaney's filter bank with area normalisation, (80, 401), 55 to 7600 Hz.

    Linear below 1 kHz (200/3 Hz a mel), logarithmic above (a factor of 6.4 in 27 mels): Slaney, Auditory Toolbox, 1998.
    """
    mels = np.linspace(_hertz_to_mel(LOWEST_HZ), _hertz_to_mel(HIGHEST_HZ), BANDS + 2)
    hertz = np.where(mels < _KNEE_MEL, mels * 200 / 3, 1000 * np.exp(_LOG_STEP * (mels - _KNEE_MEL)))
    bins = np.linspace(0, SAMPLE_RATE_HZ / 2, FFT // 2 + 1)
    rising = (bins - hertz[:-2, None]) / np.diff(hertz)[:-1, None]
    falling = (hertz[2:, None] - bins) / np.diff(hertz)[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return np.asarray(triangles * (2 / (hertz[2:] - hertz[:-2]))[:, None], np.float32)


_KNEE_MEL: Final = 15.0
_KNEE_HZ: Final = 1000.0
_LOG_STEP: Final = float(np.log(6.4) / 27)


def _hertz_to_mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < _KNEE_HZ else _KNEE_MEL + float(np.log(hertz / _KNEE_HZ)) / _LOG_STEP


def windows(mel: Floats, frames: int, fps: float) -> Floats:
    """The 16 mel frames that start with each video frame: (frames, 80, 16).

    Where the sound ends, its last mel frames are repeated, so a clip may be longer than its sound by any time.
    """
    starts = (np.arange(frames) * FRAMES_PER_SECOND / fps).astype(np.int64)
    return _cut(mel, np.minimum(starts, max(mel.shape[1] - WINDOW_FRAMES, 0)))


def centred_windows(mel: Floats, frames: int, fps: float) -> Floats:
    """As :func:`windows`, but from two video frames before, with the sound's ends repeated: (frames, 80, 16)."""
    return _cut(mel, np.trunc(FRAMES_PER_SECOND * ((np.arange(frames) - 2) / fps)).astype(np.int64))


def _cut(mel: Floats, starts: NDArray[np.int64]) -> Floats:
    columns = np.clip(starts[:, None] + np.arange(WINDOW_FRAMES), 0, mel.shape[1] - 1)
    return np.ascontiguousarray(mel[:, columns].transpose(1, 0, 2))
