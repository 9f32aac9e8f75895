"""Parts of LTX-Video: clips from words, and from a picture.

The one invariant: sides are of 64 pixels at least, so that LTX-2 can make the same clips.
"""

from collections.abc import Sequence

from optimize.parts.part import Family, Part
from optimize.parts.samples import Samples
from serving.protocol.tasks import ImageToVideoRequest, TextToVideoRequest

PROMPT = "a red fox in the snow"

_TRANSFORMER_AXES = {
    "hidden_states": "batch tokens _",
    "encoder_hidden_states": "batch _ _",
    "encoder_attention_mask": "batch _",
    "video_coords": "_ _ tokens",
}


def _parts(timestep: str) -> dict[str, Part]:
    """All of them; a picture's tokens have a time of their own, so that there is one for each token."""
    return {
        "transformer": Part(
            at="pipeline.transformer",
            axes={**_TRANSFORMER_AXES, "timestep": timestep},
            adapter="ltx_coordinates",
            fixes=("repeat_interleave",),
            int8="dynamic",
        ),
        "vae_decoder": Part(at="pipeline.vae.decoder", axes={"hidden_states": "batch _ frames height width"}),
        "text_encoder": Part(at="pipeline.text_encoder", axes={"input_ids": "batch _"}, int8="dynamic"),
    }


async def from_text(samples: Samples) -> Sequence[TextToVideoRequest]:
    """Sizes and lengths, one of them without guidance, which halves the batch and leaves the second prompt unread."""
    shapes = [(96, 64, 17, 3.0), (64, 96, 9, 3.0), (64, 64, 17, 3.0), (96, 96, 9, 1.0)]
    return [
        TextToVideoRequest(
            prompt=PROMPT, negative_prompt="blurry" if guidance > 1 else "", width=width, height=height, fps=24,
            duration_s=frames / 24, guidance=guidance, steps=2, seed=index,
        )
        for index, (width, height, frames, guidance) in enumerate(shapes)
    ]  # fmt: skip


async def from_picture(samples: Samples) -> Sequence[ImageToVideoRequest]:
    """The same with a picture, whose tokens have a time of their own."""
    picture = await samples.picture(96, 64)
    return [ImageToVideoRequest(image=picture, **request.model_dump()) for request in await from_text(samples)]


FROM_TEXT = Family(_parts("batch"), from_text)
FROM_PICTURE = Family(_parts("batch tokens"), from_picture)
