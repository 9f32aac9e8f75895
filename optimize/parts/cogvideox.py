"""Parts of CogVideoX: clips from words, and from a picture.

The one invariant: samples are of the sizes that the checkpoint can make, one of several batches of frames among them.
"""

from collections.abc import Sequence

from optimize.parts.part import Family, Part
from optimize.parts.samples import Samples
from serving.protocol.tasks import ImageToVideoRequest, TextToVideoRequest

PROMPT = "a red fox in the snow"

TEXT_ENCODER = Part(at="pipeline.text_encoder", axes={"input_ids": "batch _"}, int8="dynamic")

FROM_TEXT_PARTS = {
    "transformer": Part(
        at="pipeline.transformer",
        axes={
            "hidden_states": "batch frames _ height width",
            "encoder_hidden_states": "batch _ _",
            "timestep": "batch",
            "image_rotary_emb.*": "tokens _",
        },
        fixes=("joined_positions", "repeat_interleave"),
        int8="dynamic",
    ),
    "vae_decoder": Part(
        at="pipeline.vae.decoder",
        axes={"sample": "batch _ _ height width", "conv_cache.*": "batch _ _ * *"},
        fixes=("undivided",),
    ),
    "text_encoder": TEXT_ENCODER,
}
"""The decoder takes one to three latent frames first and two at a time later, and does another thing with each."""

FROM_PICTURE_PARTS = {
    "transformer": Part(
        at="pipeline.transformer",
        axes={"hidden_states": "batch _ _ _ _", "encoder_hidden_states": "batch _ _", "timestep": "batch"},
        int8="dynamic",
    ),
    "vae_decoder": Part(
        at="pipeline.vae.decoder",
        axes={"sample": "batch _ _ _ _", "conv_cache.*": "batch _ _ _ _"},
        fixes=("undivided",),
    ),
    "text_encoder": TEXT_ENCODER,
}
"""Positions were learned for one size and one length."""

_SIZES = ((64, 48), (48, 64), (32, 48))
_FRAMES = (17, 13, 1)
"""Five, four and one latent frames: every way in which the decoder begins, and goes on."""


async def from_text(samples: Samples) -> Sequence[TextToVideoRequest]:
    """Three sizes of every length; one is without guidance, which halves the batch."""
    return [
        TextToVideoRequest(
            prompt=PROMPT, width=width, height=height, duration_s=frames / 8, fps=8, steps=2, seed=index,
            guidance=1.0 if (frames, index) == (13, 2) else 6.0,
        )
        for frames in _FRAMES
        for index, (width, height) in enumerate(_SIZES)
    ]  # fmt: skip


async def from_picture(samples: Samples) -> Sequence[ImageToVideoRequest]:
    """Guidance, which doubles the batch, is all that varies."""
    width, height = int(samples.card.limits["width"]), int(samples.card.limits["height"])
    picture = await samples.picture(width, height)
    return [
        ImageToVideoRequest(
            image=picture, prompt=PROMPT, width=width, height=height, duration_s=1, fps=8, guidance=guidance, steps=2,
            seed=index,
        )
        for index, guidance in enumerate((6.0, 1.0))
    ]  # fmt: skip


FROM_TEXT = Family(FROM_TEXT_PARTS, from_text)
FROM_PICTURE = Family(FROM_PICTURE_PARTS, from_picture)
