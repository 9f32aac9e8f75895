"""Parts of models that make clips with a UNet: AnimateDiff and Stable Video Diffusion.

The one invariant: frames and sizes vary within a file, so that one serves clips of any length.
"""

from collections.abc import Sequence

from optimize.parts.part import Family, Part
from optimize.parts.samples import Samples
from serving.protocol.tasks import ImageToVideoRequest, TextToVideoRequest

PROMPT = "a paper boat drifts down a rainy street"

ANIMATEDIFF_PARTS = {
    "unet": Part(
        at="pipeline.unet",
        axes={"sample": "batch _ frames height width", "encoder_hidden_states": "rows _ _"},
        fixes=("repeat_interleave",),
        int8="dynamic",
    ),
    "vae_decoder": Part(at="pipeline.vae.decoder", axes={"sample": "frames _ height width"}),
    "text_encoder": Part(at="pipeline.text_encoder", axes={"input_ids": "batch _"}, int8="dynamic"),
}

STABLE_VIDEO_PARTS = {
    "unet": Part(
        at="pipeline.unet",
        axes={
            "sample": "batch frames _ height width",
            "encoder_hidden_states": "batch _ _",
            "added_time_ids": "batch _",
        },
        fixes=("repeat_interleave",),
        int8="dynamic",
    ),
    "vae_decoder": Part(
        at="pipeline.vae.decoder",
        axes={"sample": "frames _ height width", "image_only_indicator": "_ frames"},
        adapter="frames_told",
    ),
    "vae_encoder": Part(at="pipeline.vae.encoder", axes={"sample": "batch _ height width"}),
    "image_encoder": Part(at="pipeline.image_encoder", axes={"pixel_values": "batch _ _ _"}, int8="dynamic"),
}

_SHAPES = ((96, 64, 5, 3.0), (64, 96, 3, 3.0), (64, 64, 4, 3.0), (96, 96, 3, 1.0))
"""Width and height in pixels, frames, and guidance; without it there is one row and not two."""
_FPS = 8


async def from_words(samples: Samples) -> Sequence[TextToVideoRequest]:
    """Three sizes and lengths, one of them without guidance, which halves the batch."""
    return [
        TextToVideoRequest(
            prompt=PROMPT, width=width, height=height, duration_s=frames / _FPS, fps=_FPS, guidance=guidance, steps=2,
            seed=index,
        )
        for index, (width, height, frames, guidance) in enumerate(_SHAPES)
    ]  # fmt: skip


async def from_picture(samples: Samples) -> Sequence[ImageToVideoRequest]:
    """The same, each with a picture of its own."""
    return [
        ImageToVideoRequest(
            image=await samples.picture(width, height, index), width=width, height=height,
            duration_s=frames / _FPS, fps=_FPS, guidance=guidance, steps=2, seed=index,
        )
        for index, (width, height, frames, guidance) in enumerate(_SHAPES)
    ]  # fmt: skip


ANIMATEDIFF = Family(ANIMATEDIFF_PARTS, from_words)
STABLE_VIDEO = Family(STABLE_VIDEO_PARTS, from_picture)
