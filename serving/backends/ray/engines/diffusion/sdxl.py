"""Stable Diffusion XL, with and without a ControlNet: pictures from words; task image, engine diffusers.

The one invariant: a picture is of the size asked for, and of its own seed whatever it shared a batch with.
"""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from serving.backends.ray.engines.diffusion.engine import Asked, DiffusionEngine, negatives, rows
from serving.backends.ray.engines.diffusion.outputs import write_png
from serving.backends.ray.engines.network.engine import Written
from serving.backends.ray.engines.network.inputs import read_picture
from serving.errors import BadInput
from serving.protocol.tasks import ImageRequest

if TYPE_CHECKING:
    import numpy as np
    from diffusers.utils import BaseOutput
    from numpy.typing import NDArray
    from PIL.Image import Image

_LEAST_PX = 64


class SdxlEngine(DiffusionEngine[ImageRequest, "NDArray[np.uint8]"]):
    """``StableDiffusionXLPipeline``: two CLIP text encoders of 77 tokens each, sides of multiples of 8 pixels."""

    kind = "StableDiffusionXLPipeline"
    request_type = ImageRequest
    fixed: ClassVar[Mapping[str, object]] = {"add_watermarker": False}

    def unread(self) -> Mapping[str, str]:
        """A picture to be guided by, and how strongly: only a ControlNet reads them."""
        return dict.fromkeys(("control", "control_scale"), "the model has no ControlNet")

    def least_px(self) -> int:
        """A latent of 8 by 8."""
        return _LEAST_PX

    def arguments(self, batch: Sequence[Asked[ImageRequest]]) -> Mapping[str, object]:
        """Prompts and guidance."""
        return {
            "prompt": [asked.request.prompt for asked in batch],
            "negative_prompt": negatives(batch),
            "guidance_scale": self.guidance_of(batch[0].request),
        }

    def results(self, output: "BaseOutput", batch: Sequence[Asked[ImageRequest]]) -> "Sequence[NDArray[np.uint8]]":
        """The pictures."""
        return rows(output.images)

    def write(self, request: ImageRequest, output: "NDArray[np.uint8]", folder: Path) -> Written:
        """As PNG."""
        path = write_png(output, folder / "image.png")
        height, width = output.shape[:2]
        return Written({"width": width, "height": height}, {"image": (path, "image/png")})

    def smallest(self) -> ImageRequest:
        """One step at the least size."""
        return ImageRequest(prompt="a grey wall", width=_LEAST_PX, height=_LEAST_PX, steps=1)


class SdxlControlEngine(SdxlEngine):
    """``StableDiffusionXLControlNetPipeline``: the same, guided by a picture of edges, depth or a pose.

    The ControlNet is the card's part ``controlnet``, or lies in the pipeline's own folder.
    """

    kind = "StableDiffusionXLControlNetPipeline"
    checkpoints = ("StableDiffusionXLPipeline", "StableDiffusionXLControlNetPipeline")

    def unread(self) -> Mapping[str, str]:
        """It has a ControlNet."""
        return {}

    def check(self, request: ImageRequest) -> None:
        """Refuse a request without the picture to be guided by."""
        super().check(request)
        if request.control is None:
            raise BadInput("the model is guided by a picture", field="control", fix="send edges, depth or a pose")

    def pictures(self, request: ImageRequest, files: Mapping[str, Path]) -> "Mapping[str, Image]":
        """The guide, filling the frame; a grey one to warm up with."""
        from PIL import Image, ImageOps

        size = (request.width, request.height)
        if "control" not in files:
            return {"control": Image.new("RGB", size, "grey")}
        return {"control": ImageOps.fit(read_picture(files["control"], "control"), size)}

    def batch_key(self, prepared: Asked[ImageRequest]) -> Hashable | None:
        """The guide's weight too is one for the batch."""
        return (super().batch_key(prepared), prepared.request.control_scale)

    def arguments(self, batch: Sequence[Asked[ImageRequest]]) -> Mapping[str, object]:
        """Prompts, guidance and guides."""
        return {
            **super().arguments(batch),
            "image": [asked.pictures["control"] for asked in batch],
            "controlnet_conditioning_scale": batch[0].request.control_scale,
        }
