"""The picture a programme is known by: the sharpest well-lit frame among a few; used by the compositor.

The one invariant: an almost black frame is never chosen while another one exists.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from serving.errors import EngineFailed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CANDIDATES: Final = 10
_DARK: Final = 24.0
"""Mean luma (0 to 255) under which a frame counts as black."""


def choose_thumbnail(video: Path, target: Path, duration_s: float) -> None:
    """Write a JPEG of the best frame; blocks.

    Raises:
        EngineFailed: the video holds no frame.
    """
    import cv2

    best: tuple[float, NDArray[np.uint8]] | None = None
    for picture in _candidates(video, duration_s):
        score = frame_score(picture)
        if best is None or score > best[0]:
            best = (score, picture)
    if best is None:
        raise EngineFailed("the finished film holds no frame")
    encoded = cv2.imencode(".jpg", best[1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    target.write_bytes(encoded.tobytes())


def frame_score(picture: "NDArray[np.uint8]") -> float:
    """Sharpness (variance of the Laplacian) of a BGR frame, scaled down hard when the frame is dark."""
    import cv2

    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    sharpness = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    light = float(grey.mean())
    return (sharpness + 1.0) * (1.0 if light >= _DARK else light / _DARK / 1000)


def _candidates(video: Path, duration_s: float) -> Iterator["NDArray[np.uint8]"]:
    """Key frames spread over the middle of the film, away from its first and last moments."""
    import av

    with av.open(str(video)) as medium:
        stream: Any = medium.streams.video[0]
        stream.codec_context.skip_frame = "NONKEY"
        for index in range(CANDIDATES):
            at_s = duration_s * (0.08 + 0.84 * index / (CANDIDATES - 1))
            medium.seek(int(at_s * 1_000_000), backward=True)
            frame = next(medium.decode(stream), None)
            if frame is not None:
                yield frame.to_ndarray(format="bgr24")
