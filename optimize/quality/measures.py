"""Distances between two pictures, waveforms and texts; pure, used by optimize.quality.rows.

The one invariant: equal arguments give the best value there is (infinite decibels, 1 or 0), and nothing divides by
zero.
"""

import re
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.uint8]
"""uint8 ``(frames, height, width, 3)``, red-green-blue."""

PEAK: Final = 255.0
WINDOW_PX: Final = 11
SIGMA_PX: Final = 1.5
C1: Final = (0.01 * PEAK) ** 2
C2: Final = (0.03 * PEAK) ** 2
"""Window and constants of Wang, Bovik, Sheikh and Simoncelli: Image Quality Assessment (2004), section III.C."""

_UNSPACED: Final = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
"""Scripts written without spaces: Thai, Lao, Khmer, Japanese, Chinese. A character of them counts as a word."""

_WORD: Final = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


def squared_errors(expected: Pictures, found: Pictures) -> NDArray[np.float64]:
    """Mean squared error of every frame, ``(frames,)``, in squared levels of 255."""
    return np.array(
        [
            np.mean(np.square(one.astype(np.float64) - other.astype(np.float64)))
            for one, other in zip(expected, found, strict=True)
        ]
    )


def psnr_db(squared_error: float) -> float:
    """Peak signal-to-noise ratio of 8-bit pictures in decibels; infinite for none."""
    return float(10 * np.log10(PEAK**2 / squared_error)) if squared_error > 0 else float("inf")


def ssim(expected: NDArray[np.uint8], found: NDArray[np.uint8]) -> float:
    """Mean structural similarity of the luminance of two pictures, -1 to 1.

    Args:
        expected: uint8 ``(height, width, 3)``, red-green-blue, at least 11 pixels each way.
        found: the same.

    Windows that would reach over the edge are left out, as the authors' program does.
    """
    one, other = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float64) for picture in (expected, found))
    mean_one, mean_other = _windowed(one), _windowed(other)
    variance_one = _windowed(one * one) - mean_one**2
    variance_other = _windowed(other * other) - mean_other**2
    covariance = _windowed(one * other) - mean_one * mean_other
    above = (2 * mean_one * mean_other + C1) * (2 * covariance + C2)
    below = (mean_one**2 + mean_other**2 + C1) * (variance_one + variance_other + C2)
    return float(np.mean(above / below))


def _windowed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian means of every whole window."""
    edge = WINDOW_PX // 2
    means = np.asarray(cv2.GaussianBlur(values, (WINDOW_PX, WINDOW_PX), SIGMA_PX), np.float64)
    return means[edge:-edge, edge:-edge]


def snr_db(expected: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """Signal-to-noise ratio in decibels of arrays of one shape: the reference's energy by the difference's."""
    noise = float(np.sum(np.square(expected - found)))
    signal = float(np.sum(np.square(expected)))
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal else float("-inf")


def words_of(text: str) -> list[str]:
    """The words of a text, as they are written; where a script has no spaces, its characters."""
    return _WORD.findall(text)


def word_errors(expected: Sequence[str], found: Sequence[str]) -> int:
    """The least number of words to put in, leave out or replace (Levenshtein's distance)."""
    row = list(range(len(found) + 1))
    for index, wanted in enumerate(expected, 1):
        diagonal, row[0] = row[0], index
        for at, got in enumerate(found, 1):
            replaced = diagonal + (wanted != got)
            diagonal, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, replaced)
    return row[-1]
