"""Whisper's log-mel front end as an ONNX graph of plain operators; the recipe of model ``log_mel``.

The one invariant: the exported module and the reference are two programs: the reference is torch.stft, as
Whisper itself computes it (whisper/audio.py, MIT, by OpenAI), the exported one a convolution with the
windowed Fourier basis, because ONNX Runtime has no fast STFT operator on every provider. Parity therefore
proves the rewriting too, not the exporter alone.
"""

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from optimize.recipe import Array, Tensor
from optimize.torch_recipe import TorchRecipe

SAMPLE_RATE_HZ: Final = 16_000
WINDOW: Final = 400
HOP: Final = 160
BANDS: Final = 80
FLOOR: Final = 1e-10
DYNAMIC_RANGE: Final = 8.0
"""In powers of ten below the loudest value of the clip; quieter values are raised to it."""


def mel_filters() -> npt.NDArray[np.float32]:
    """Slaney's mel filter bank with area normalisation, (80, 201), 0 to 8000 Hz; what librosa.filters.mel
    makes.

    Linear below 1 kHz (200/3 Hz a mel), logarithmic above (a factor of 6.4 in 27 mels): Slaney, Auditory
    Toolbox, 1998.
    """
    steps_per_octave = np.log(6.4) / 27
    top = 15 + np.log(SAMPLE_RATE_HZ / 2 / 1000) / steps_per_octave
    mels = np.linspace(0, top, BANDS + 2)
    hertz = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(steps_per_octave * (mels - 15)))  # noqa: PLR2004
    bins = np.linspace(0, SAMPLE_RATE_HZ / 2, WINDOW // 2 + 1)
    rising = (bins - hertz[:-2, None]) / (hertz[1:-1] - hertz[:-2])[:, None]
    falling = (hertz[2:, None] - bins) / (hertz[2:] - hertz[1:-1])[:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return np.asarray(triangles * (2 / (hertz[2:] - hertz[:-2]))[:, None], np.float32)


def fourier_basis() -> npt.NDArray[np.float32]:
    """Hann-windowed cosines, then sines, (402, 1, 400): the real and imaginary parts of the transform as
    filters.
    """
    time = np.arange(WINDOW)
    angles = 2 * np.pi * np.outer(np.arange(WINDOW // 2 + 1), time) / WINDOW
    window = 0.5 - 0.5 * np.cos(2 * np.pi * time / WINDOW)
    basis = np.concatenate([np.cos(angles), -np.sin(angles)]) * window
    return np.asarray(basis[:, None, :], np.float32)


def compress(power: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """Power spectrum (201, frames) to Whisper's features (frames, 80)."""
    logs = torch.clamp(filters @ power, min=FLOOR).log10()
    logs = torch.maximum(logs, logs.max() - DYNAMIC_RANGE)
    return ((logs + 4) / 4).T


class WhisperLogMel(nn.Module):
    """The reference: torch.stft, mel filters, log10."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Buffer(torch.from_numpy(mel_filters()))
        self.window = nn.Buffer(torch.hann_window(WINDOW))

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        """Mono 16 kHz samples (n,) in -1..1, n > 200, to features (n // 160, 80)."""
        spectrum = torch.stft(audio, WINDOW, HOP, window=self.window, return_complex=True)
        return compress(spectrum[:, :-1].abs() ** 2, self.filters)


class ConvLogMel(nn.Module):
    """What is exported: the same with the transform as one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Buffer(torch.from_numpy(mel_filters()))
        self.basis = nn.Buffer(torch.from_numpy(fourier_basis()))

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        """As the reference."""
        padded = functional.pad(audio[None, None], (WINDOW // 2, WINDOW // 2), mode="reflect")
        real, imaginary = functional.conv1d(padded, self.basis, stride=HOP)[0, :, :-1].chunk(2)
        return compress(real**2 + imaginary**2, self.filters)


def speech_like(shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Gliding harmonics in syllables of 0.2 s with pauses and room noise at -60 dB: loud, quiet and silent
    bands at once.
    """
    (samples,) = shape
    time = np.arange(samples) / SAMPLE_RATE_HZ
    pitch = 140 + 40 * np.sin(2 * np.pi * 0.7 * time + random.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE_HZ
    voice = sum(random.uniform(0.2, 1) / k * np.sin(k * phase) for k in range(1, 25))
    syllables = np.clip(np.sin(2 * np.pi * 2.5 * time + random.uniform(0, 6)), 0, 1)
    return np.asarray(0.2 * voice * syllables + 1e-3 * random.standard_normal(samples), np.float32)


RECIPE: Final = TorchRecipe(
    module=ConvLogMel,
    reference=WhisperLogMel,
    inputs=[Tensor("AUDIO", "float32", ("samples",))],
    outputs=[Tensor("FEATURES", "float32", ("frames", BANDS))],
    sizes=[{"samples": 48_000}, {"samples": 16_001}, {"samples": 201}, {"samples": 480_000}],
    sampler=lambda tensor, shape, random: speech_like(shape, random),
    source=Path(__file__),
)
