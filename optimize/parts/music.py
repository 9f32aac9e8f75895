"""Parts of models that make music by denoising: Stable Audio and ACE-Step.

The one invariant: samples are short, and of several lengths wherever the network works on the length asked for.
"""

from collections.abc import Sequence

from optimize.parts.part import Family, Part
from optimize.parts.samples import Samples
from serving.protocol.tasks import MusicRequest

PROMPT = "a warm piano plays a slow melody over soft strings"
LYRICS = "rain on the window\nbright lights of the city"

STABLE_AUDIO_PARTS = {
    "transformer": Part(
        at="pipeline.transformer",
        axes={"hidden_states": "batch _ _", "encoder_hidden_states": "batch _ _", "global_hidden_states": "batch _ _"},
        int8="dynamic",
    ),
    "vae_decoder": Part(at="pipeline.vae.decoder", axes={"hidden_state": "batch _ _"}),
    "text_encoder": Part(
        at="pipeline.text_encoder",
        axes={"input_ids": "batch _", "attention_mask": "batch _"},
        int8="dynamic",
    ),
    "projection": Part(
        at="pipeline.projection_model",
        axes={"text_hidden_states": "batch _ _", "start_seconds": "batch", "end_seconds": "batch"},
    ),
}
"""The network always works on its whole length, so that rows are all that varies."""

ACE_STEP_PARTS = {
    "transformer": Part(
        at="pipeline.transformer",
        axes={
            "hidden_states": "batch length _",
            "timestep*": "batch",
            "encoder_hidden_states": "batch words _",
            "context_latents": "batch length _",
        },
        adapter="apart",
        fixes=("whole_patches",),
        int8="dynamic",
    ),
    "vae_decoder": Part(at="pipeline.vae.decoder", axes={"hidden_state": "batch _ length"}),
    "text_encoder": Part(at="pipeline.text_encoder", axes={"input_ids": "batch tokens"}, int8="dynamic"),
    "lyric_encoder": Part(
        at="pipeline.condition_encoder.lyric_encoder",
        axes={"inputs_embeds": "batch lyrics _", "attention_mask": "batch lyrics"},
        int8="dynamic",
    ),
}
"""What joins words, lyrics and timbre counts rows by the numbers in a tensor, which no graph can: that is left."""


async def instrumental(samples: Samples) -> Sequence[MusicRequest]:
    """Three lengths, one of them without guidance, which halves the batch."""
    shapes = [(0.5, 7.0), (1.0, 7.0), (0.7, 1.0)]
    return [
        MusicRequest(prompt=PROMPT, duration_s=seconds, guidance=guidance, steps=2, seed=index)
        for index, (seconds, guidance) in enumerate(shapes)
    ]


async def songs(samples: Samples) -> Sequence[MusicRequest]:
    """Lengths of words, of lyrics and of sound, even and odd; one without guidance, if the card tells of any."""
    guided = "guidance" in samples.card.options
    shapes = [(2.0, 7.0), (3.0, 7.0), (1.0, 7.0), (1.52, 1.0)]
    return [
        MusicRequest(
            prompt=PROMPT[: 20 + 10 * index], lyrics=LYRICS[: 10 + 9 * index], duration_s=seconds, steps=2, seed=index,
            guidance=guidance if guided else None,
        )
        for index, (seconds, guidance) in enumerate(shapes)
    ]  # fmt: skip


STABLE_AUDIO = Family(STABLE_AUDIO_PARTS, instrumental)
ACE_STEP = Family(ACE_STEP_PARTS, songs)
