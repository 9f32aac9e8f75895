"""MusicGen's samples as the mesh's music: stereo, 48 kHz, with an end; used by MusicgenEngine.

The one invariant: exactly as long as asked for, and silent at its end.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

RATE_HZ: Final = 48_000
_LONGEST_FADE_S: Final = 1.5
_FADE_PART: Final = 0.15
_CEILING: Final = 0.98


def finished(samples: NDArray[np.float32], rate_hz: int, duration_s: float) -> NDArray[np.float32]:
    """Resample, make stereo, end softly.

    Args:
        samples: float32 ``(samples, channels)``, one or two channels; not shorter than asked for, but for rounding.
        rate_hz: of the samples.
        duration_s: wanted.

    Returns:
        float32 ``(frames, 2)`` at :data:`RATE_HZ`, -0.98 to 0.98.
    """
    import soxr

    wanted = round(duration_s * RATE_HZ)
    resampled = soxr.resample(samples, rate_hz, RATE_HZ, quality="HQ")[:wanted]
    stereo = np.zeros((wanted, 2), np.float32)
    stereo[: len(resampled)] = resampled
    fade = max(1, round(min(_LONGEST_FADE_S, _FADE_PART * duration_s) * RATE_HZ))
    tail = stereo[-fade:]
    tail *= np.cos(np.linspace(0, np.pi / 2, len(tail), dtype=np.float32))[:, None] ** 2
    peak = float(np.abs(stereo).max(initial=0.0))
    return stereo * np.float32(_CEILING / peak) if peak > _CEILING else stereo
