"""Parts of models that make pictures: Stable Diffusion XL, with and without a ControlNet.

The one invariant: sizes and rows vary in every file; texts have the 77 tokens of CLIP.
"""

from collections.abc import Sequence
from dataclasses import replace

from optimize.parts.part import Family, Part
from optimize.parts.samples import Samples
from serving.protocol.tasks import ImageRequest

PROMPT = "a lighthouse at dusk"

_ASKED = {
    "sample": "batch _ height width",
    "encoder_hidden_states": "batch _ _",
    "added_cond_kwargs.*": "batch _",
}
"""Of UNet and ControlNet alike."""

SDXL_PARTS = {
    "unet": Part(at="pipeline.unet", axes=_ASKED, fixes=("cat",), int8="dynamic"),
    "vae_decoder": Part(at="pipeline.vae.decoder", axes={"sample": "batch _ height width"}),
    "text_encoder": Part(at="pipeline.text_encoder", axes={"input_ids": "batch _"}, int8="dynamic"),
    "text_encoder_2": Part(at="pipeline.text_encoder_2", axes={"input_ids": "batch _"}, int8="dynamic"),
}

_RESIDUALS = {"down_block_additional_residuals.*": "batch _ * *", "mid_block_additional_residual": "batch _ * *"}
"""What a ControlNet adds to the UNet, block by block, each of a size of its own."""

SDXL_CONTROLNET_PARTS = {
    **SDXL_PARTS,
    "unet": replace(SDXL_PARTS["unet"], axes=_ASKED | _RESIDUALS),
    "controlnet": Part(
        at="pipeline.controlnet",
        axes=_ASKED | {"controlnet_cond": "batch _ * *"},
        fixes=("cat",),
        adapter="control_scale",
        int8="dynamic",
    ),
}


async def pictures(samples: Samples) -> Sequence[ImageRequest]:
    """Three sizes, one of them without guidance, which halves the batch."""
    shapes = [(96, 64, 5.0), (64, 96, 5.0), (128, 96, 5.0), (96, 128, 1.0)]
    return [
        ImageRequest(prompt=PROMPT, width=width, height=height, guidance=guidance, steps=2, seed=index)
        for index, (width, height, guidance) in enumerate(shapes)
    ]


async def guided_pictures(samples: Samples) -> Sequence[ImageRequest]:
    """The same, each with a picture to be guided by and another weight of it."""
    return [
        request.model_copy(
            update={"control": await samples.picture(request.width, request.height, index), "control_scale": weight}
        )
        for index, (request, weight) in enumerate(zip(await pictures(samples), (0.8, 1.0, 0.5, 0.3), strict=True))
    ]


SDXL = Family(SDXL_PARTS, pictures)
SDXL_CONTROLNET = Family(SDXL_CONTROLNET_PARTS, guided_pictures)
