"""KenBurnsEngine: a still picture becomes a clip by a slow, smooth camera; task image_to_video, no weights needed.

The one invariant: a clip has exactly ``round(duration_s * fps)`` frames, at least one.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from serving.backends.base import EngineContext
from serving.backends.call import Call
from serving.backends.ray.engines.ken_burns_camera import ZOOM, View, sampling, view
from serving.backends.ray.engines.threads import in_thread
from serving.errors import BadInput
from serving.media.ffmpeg import VideoWriter
from serving.media.layout import even
from serving.media.pictures import check_picture
from serving.protocol.tasks import ImageToVideoRequest, TaskRequest, VideoResult
from serving.repository.model import Model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_CROPPED: Final = 0.42
"""When filling the frame would cut away more of the picture than this, it is shown whole on a blurred ground."""

_GROUND_BLUR: Final = 0.03
_GROUND_LIGHT: Final = 0.42
_WHOLE_SHARE: Final = 0.90


class KenBurnsEngine:
    """Moves a camera over a picture with sub-pixel steps (``cv2.warpAffine``, cubic); needs no weights."""

    def __init__(self, model: Model, context: EngineContext) -> None:
        self._artifacts = context.artifacts
        self._scratch = context.scratch

    async def run(self, request: TaskRequest, call: Call) -> VideoResult:
        """Render the clip.

        Raises:
            BadInput: the image is not a readable picture.
        """
        if not isinstance(request, ImageToVideoRequest):
            raise BadInput(f"the camera cannot run a {type(request).__name__}", fix="send an image_to_video request")
        image = await self._artifacts.local_path(request.image)
        with tempfile.TemporaryDirectory(prefix="motion-", dir=self._scratch) as name:
            clip = Path(name) / "motion.mp4"
            frames = await in_thread(call, lambda: render(image, request, clip, call))
            video = await self._artifacts.put_file(clip, media_type="video/mp4")
        return VideoResult(video=video, frames=frames, fps=request.fps)

    async def close(self) -> None:
        """Nothing stays loaded."""


def render(image: Path, request: ImageToVideoRequest, clip: Path, call: Call) -> int:
    """Write the clip and return its number of frames; blocks.

    The camera moves over the Y, U and V planes, converted once: half the work of warping every frame in colour
    and converting it afterwards.
    """
    size = (request.width, request.height)
    planes = yuv_planes(stage(load_picture(image, request.image.name), size))
    frames = max(1, round(request.duration_s * request.fps))
    with VideoWriter(clip, *size, request.fps, pixel_format="yuv420p") as video:
        for number in range(frames):
            call.checkpoint()
            seen = view(request.motion, number / max(1, frames - 1), request.seed)
            video.write(look(planes, seen, size))
            call.tell((number + 1) / frames)
    return frames


def look(planes: Sequence["NDArray[np.uint8]"], seen: View, size: tuple[int, int]) -> "NDArray[np.uint8]":
    """One frame as I420, uint8 ``(height * 3 / 2, width)``."""
    import cv2
    import numpy as np

    half = (size[0] // 2, size[1] // 2)
    parts = []
    for plane, target in zip(planes, (size, half, half), strict=True):
        matrix = sampling(seen, (plane.shape[1], plane.shape[0]), target)
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        warped = cv2.warpAffine(plane, matrix, target, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        parts.append(np.asarray(warped, np.uint8).reshape(-1))
    return np.concatenate(parts).reshape(size[1] * 3 // 2, size[0])


def yuv_planes(picture: "NDArray[np.uint8]") -> tuple["NDArray[np.uint8]", "NDArray[np.uint8]", "NDArray[np.uint8]"]:
    """Y, U and V of a BGR picture by BT.709, limited range; U and V at half the size."""
    import cv2
    import numpy as np

    blue, green, red = (picture[..., channel].astype(np.float32) / 255 for channel in range(3))
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    half = (picture.shape[1] // 2, picture.shape[0] // 2)

    def chroma(difference: "NDArray[np.floating[Any]]", scale: float) -> "NDArray[np.uint8]":
        small = cv2.resize(128 + 224 * difference / scale, half, interpolation=cv2.INTER_AREA)
        return np.asarray(small).round().clip(16, 240).astype(np.uint8)

    y = (16 + 219 * luma).round().astype(np.uint8)
    return y, chroma(blue - luma, 1.8556), chroma(red - luma, 1.5748)


def load_picture(path: Path, name: str) -> "NDArray[np.uint8]":
    """A picture upright, as BGR; transparency is laid on black.

    Raises:
        BadInput: see :func:`serving.media.pictures.check_picture`.
    """
    import numpy as np
    from PIL import Image, ImageOps

    check_picture(path, field="image", name=name)
    with Image.open(path) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", picture.size, (0, 0, 0, 255)), picture)
    return np.ascontiguousarray(np.asarray(flat.convert("RGB"))[..., ::-1])


def stage(picture: "NDArray[np.uint8]", size: tuple[int, int]) -> "NDArray[np.uint8]":
    """The picture filling the frame's shape, larger than the frame by the nearest view so that zooming stays sharp."""
    working = (even(size[0] * ZOOM), even(size[1] * ZOOM))
    height, width = picture.shape[:2]
    share = (width / height) / (size[0] / size[1])
    if 1 - min(share, 1 / share) > MOST_CROPPED:
        return _whole_on_blur(picture, working)
    return cover(picture, working)


def cover(picture: "NDArray[np.uint8]", size: tuple[int, int]) -> "NDArray[np.uint8]":
    """Scale a picture to fill ``size`` (width, height) and cut the rest away, more at the bottom than the top."""
    scale = max(size[0] / picture.shape[1], size[1] / picture.shape[0])
    scaled = _scaled(picture, scale, at_least=size)
    left = (scaled.shape[1] - size[0]) // 2
    top = int((scaled.shape[0] - size[1]) * 0.4)
    return scaled[top : top + size[1], left : left + size[0]].copy()


def _scaled(picture: "NDArray[np.uint8]", scale: float, *, at_least: tuple[int, int]) -> "NDArray[np.uint8]":
    import cv2
    import numpy as np

    size = (
        max(at_least[0], round(picture.shape[1] * scale)),
        max(at_least[1], round(picture.shape[0] * scale)),
    )
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LANCZOS4
    return np.asarray(cv2.resize(picture, size, interpolation=how), np.uint8)


def _whole_on_blur(picture: "NDArray[np.uint8]", size: tuple[int, int]) -> "NDArray[np.uint8]":
    """The whole picture over a dark, blurred enlargement of itself."""
    import cv2
    import numpy as np

    blurred = cv2.GaussianBlur(cover(picture, size), (0, 0), size[0] * _GROUND_BLUR)
    ground: NDArray[np.uint8] = (np.asarray(blurred) * _GROUND_LIGHT).astype(np.uint8)
    scale = _WHOLE_SHARE * min(size[0] / picture.shape[1], size[1] / picture.shape[0])
    whole = _scaled(picture, scale, at_least=(1, 1))
    top, left = (size[1] - whole.shape[0]) // 2, (size[0] - whole.shape[1]) // 2
    ground[top : top + whole.shape[0], left : left + whole.shape[1]] = whole
    return ground
