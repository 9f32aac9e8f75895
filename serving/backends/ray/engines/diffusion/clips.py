"""ClipEngine: what pipelines that make clips have in common: frames from seconds, their bound, and MP4; tasks of video.

The one invariant: a clip has exactly ``round(duration_s * fps)`` frames, at least one, at the rate asked for.
"""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from serving.backends.ray.engines.diffusion.engine import Asked, DiffusionEngine, rows
from serving.backends.ray.engines.diffusion.outputs import write_clip
from serving.backends.ray.engines.network.engine import Written
from serving.backends.ray.engines.network.inputs import read_picture
from serving.errors import BadInput
from serving.protocol.tasks import ImageToVideoRequest, TextToVideoRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

Request = TypeVar("Request", bound=TextToVideoRequest | ImageToVideoRequest)


class ClipEngine(DiffusionEngine[Request, "NDArray[np.uint8]"]):
    """A pipeline that returns ``frames``; an output is uint8 ``(frames, height, width, 3)``.

    The card's ``options.frames`` bounds a clip, and :meth:`most_frames` of the family what the network can do.
    """

    lower = ("duration_s", "fps", "width", "height")

    def most_frames(self) -> int:
        """The longest clip."""
        return int(self.option("frames", 16))

    def frames_of(self, request: TextToVideoRequest | ImageToVideoRequest) -> int:
        """In the clip asked for."""
        return max(1, round(request.duration_s * request.fps))

    def check(self, request: Request) -> None:
        """Refuse clips that are too long."""
        super().check(request)
        frames, most = self.frames_of(request), self.most_frames()
        if frames > most:
            raise BadInput(
                f"{request.duration_s:g} s at {request.fps} frames/s are {frames} frames, the model makes {most}",
                field="duration_s",
                fix=f"use at most {most / request.fps:g} s, or a lower fps",
            )

    def batch_key(self, prepared: Asked[Request]) -> Hashable | None:
        """Clips of one batch are equally long."""
        return (super().batch_key(prepared), self.frames_of(prepared.request), prepared.request.fps)

    def results(self, output: Any, batch: Sequence[Asked[Request]]) -> "Sequence[NDArray[np.uint8]]":  # noqa: ANN401
        """The clips."""
        return rows(output.frames)

    def write(self, request: Request, output: "NDArray[np.uint8]", folder: Path) -> Written:
        """As H.264, silent."""
        path = folder / "clip.mp4"
        frames = write_clip(output, path, request.fps)
        return Written({"frames": frames, "fps": request.fps}, {"video": (path, "video/mp4")})


def still(request: ImageToVideoRequest, files: Mapping[str, Path]) -> "Mapping[str, Image]":
    """The picture to bring to motion, filling the frame; a grey one to warm up with.

    Raises:
        BadInput: it is no picture, or has a side out of bounds.
    """
    from PIL import Image, ImageOps

    size = (request.width, request.height)
    if "image" not in files:
        return {"image": Image.new("RGB", size, "grey")}
    return {"image": ImageOps.fit(read_picture(files["image"], "image"), size)}
