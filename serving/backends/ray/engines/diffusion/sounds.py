"""What sound of a diffusion pipeline becomes: checked, of an exact length and rate, WAV; used by clips and music.

The one invariant: an output that holds values which are no numbers fails; it never becomes a file.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from serving.backends.ray.engines.diffusion.outputs import check_finite

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

FADE_S: Final = 0.05
"""Length of the fade at the end of music, so that the last sample is silent."""


def stereo(values: "torch.Tensor") -> "NDArray[np.float32]":
    """Sound of one row.

    Args:
        values: float ``(channels, samples)`` of one or two channels, on any device.

    Returns:
        float32 ``(samples, 2)``, -1 to 1.

    Raises:
        EngineFailed: some values are no numbers.
    """
    import numpy as np

    found = np.ascontiguousarray(values.detach().float().cpu().numpy().T)
    check_finite(found)
    both = np.repeat(found, 2, axis=1) if found.shape[1] == 1 else found
    return np.asarray(both.clip(-1, 1), np.float32)


def of_length(sound: "NDArray[np.float32]", samples: int) -> "NDArray[np.float32]":
    """Cut at the end, or continued in silence.

    Args:
        sound: float32 ``(samples, channels)``.
        samples: of the answer.
    """
    import numpy as np

    return np.pad(sound[:samples], ((0, max(0, samples - len(sound))), (0, 0)))


def at_rate(sound: "NDArray[np.float32]", from_hz: int, to_hz: int) -> "NDArray[np.float32]":
    """Resample float32 ``(samples, channels)``; the same array where the rates are equal."""
    if from_hz == to_hz:
        return sound
    import numpy as np
    import soxr

    return np.asarray(soxr.resample(sound, from_hz, to_hz, quality="VHQ"), np.float32)


def faded(sound: "NDArray[np.float32]", rate_hz: int) -> "NDArray[np.float32]":
    """Music that falls silent within its last :data:`FADE_S`."""
    import numpy as np

    length = min(len(sound), max(1, int(FADE_S * rate_hz)))
    curve = np.ones(len(sound), np.float32)
    curve[len(sound) - length :] = np.cos(np.linspace(0, np.pi / 2, length, dtype=np.float32)) ** 2
    return sound * curve[:, None]


def write_wav(sound: "NDArray[np.float32]", path: Path, rate_hz: int) -> Path:
    """Write float32 ``(samples, channels)``, -1 to 1, as 16-bit WAV; equal sound gives equal bytes."""
    import numpy as np
    import soundfile

    soundfile.write(path, np.clip(sound, -1, 1), rate_hz, format="WAV", subtype="PCM_16")
    return path
