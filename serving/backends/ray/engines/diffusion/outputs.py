"""What comes out of a diffusion pipeline, checked and written as PNG or MP4; used by the families.

The one invariant: an output that holds values which are no numbers fails; it never becomes a file.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from serving.errors import EngineFailed
from serving.media.ffmpeg import VideoWriter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PNG_EFFORT: Final = 3
"""Of zlib's 9: a 1024x1024 picture in a third of the time of Pillow's 6, 4 % larger."""


def pixels(values: "NDArray[np.floating]") -> "NDArray[np.uint8]":
    """Pictures or frames as bytes.

    Args:
        values: float ``(..., height, width, 3)``, 0 to 1, as pipelines return them for ``output_type="np"``.

    Returns:
        uint8 of the same shape.

    Raises:
        EngineFailed: some are no numbers.
    """
    import numpy as np

    found = np.asarray(values, np.float32)
    check_finite(found)
    return (found * 255).round().clip(0, 255).astype(np.uint8)


def check_finite(values: "NDArray[np.floating]") -> None:
    """Refuse an output with NaN or infinity in it.

    Raises:
        EngineFailed: says how many values are none.
    """
    import numpy as np

    finite = np.isfinite(values)
    if not finite.all():
        bad = int(finite.size - np.count_nonzero(finite))
        problem = f"the network made {bad} of {finite.size} values that are no numbers"
        raise EngineFailed(problem, fix="try another seed or guidance, or set precision to bf16 or fp32")


def write_png(picture: "NDArray[np.uint8]", path: Path) -> Path:
    """Write uint8 ``(height, width, 3)`` as PNG; equal pixels give equal bytes."""
    from PIL import Image

    Image.fromarray(picture).save(path, "PNG", compress_level=_PNG_EFFORT)
    return path


def write_clip(frames: "NDArray[np.uint8]", path: Path, fps: int) -> int:
    """Write uint8 ``(frames, height, width, 3)`` RGB as a silent H.264 clip, and return how many there were.

    Raises:
        EngineFailed: there is no frame, or ffmpeg failed.
    """
    if not len(frames):
        raise EngineFailed("the network made no frame")
    height, width = frames.shape[1:3]
    with VideoWriter(path, width, height, fps, pixel_format="rgb24") as video:
        for frame in frames:
            video.write(frame)
    return video.frames
