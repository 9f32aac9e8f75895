"""Parts of models that make pictures: Stable Diffusion XL, with and without a ControlNet.

The one invariant: sizes and rows vary in every file; texts have the 77 tokens of CLIP.
"""

from collections.abc import Sequence

from optimize.parts.part import Family, Part
from optimize.parts.samples import Samples
from serving.protocol.tasks import ImageRequest

PROMPT = "a lighthouse at dusk"

SDXL_PARTS = {
    "unet": Part(
        at="pipeline.unet",
        axes={
            "sample": "batch _ height width",
            "encoder_hidden_states": "batch _ _",
            "added_cond_kwargs.*": "batch _",
        },
        int8="dynamic",
    ),
    "vae_decoder": Part(at="pipeline.vae.decoder", axes={"sample": "batch _ height width"}),
    "text_encoder": Part(at="pipeline.text_encoder", axes={"input_ids": "batch _"}),
    "text_encoder_2": Part(at="pipeline.text_encoder_2", axes={"input_ids": "batch _"}),
}


async def pictures(samples: Samples) -> Sequence[ImageRequest]:
    """Three sizes, one of them without guidance, which halves the batch."""
    shapes = [(96, 64, 5.0), (64, 96, 5.0), (128, 96, 5.0), (96, 128, 1.0)]
    return [
        ImageRequest(prompt=PROMPT, width=width, height=height, guidance=guidance, steps=2, seed=index)
        for index, (width, height, guidance) in enumerate(shapes)
    ]


SDXL = Family(SDXL_PARTS, pictures)
