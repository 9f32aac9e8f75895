"""Parts of models that make music by denoising: Stable Audio and ACE-Step."""

from collections.abc import Sequence

from optimize.parts.part import Family, Part
from optimize.parts.samples import Samples
from serving.protocol.tasks import MusicRequest

PROMPT = "a warm piano plays a slow melody over soft strings"
LYRICS = "rain on the window\nlights of the city"

STABLE_AUDIO_PARTS = {
    "transformer": Part(at="pipeline.transformer", int8="dynamic"),
    "vae_decoder": Part(at="pipeline.vae.decoder"),
    "text_encoder": Part(at="pipeline.text_encoder", int8="dynamic"),
    "projection": Part(at="pipeline.projection_model"),
}
ACE_STEP_PARTS = {
    "transformer": Part(at="pipeline.transformer", int8="dynamic"),
    "vae_decoder": Part(at="pipeline.vae.decoder"),
    "text_encoder": Part(at="pipeline.text_encoder", int8="dynamic"),
    "condition_encoder": Part(at="pipeline.condition_encoder", int8="dynamic"),
}


async def instrumental(samples: Samples) -> Sequence[MusicRequest]:
    """Lengths, one without guidance."""
    return [
        MusicRequest(prompt=PROMPT, duration_s=seconds, guidance=guidance, steps=2, seed=index)
        for index, (seconds, guidance) in enumerate([(0.5, 7.0), (1.0, 7.0), (0.7, 1.0)])
    ]


async def songs(samples: Samples) -> Sequence[MusicRequest]:
    return [
        MusicRequest(prompt=PROMPT[: 20 + 10 * index], lyrics=LYRICS[: 10 + 9 * index], duration_s=seconds, guidance=guidance, steps=2, seed=index)
        for index, (seconds, guidance) in enumerate([(2, 7.0), (3, 7.0), (1, 7.0), (1.5, 1.0)])
    ]


STABLE_AUDIO = Family(STABLE_AUDIO_PARTS, instrumental)
ACE_STEP = Family(ACE_STEP_PARTS, songs)
