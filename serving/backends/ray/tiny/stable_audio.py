"""A tiny Stable Audio checkpoint; called by `reelmesh models tiny` and by tests.

The one invariant: sound is stereo at 44.1 kHz in steps of 2048 samples, as in the published one; only widths, depths
and the length that the network works on are smaller.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from serving.backends.ray.engines.diffusion.loading import library
from serving.backends.ray.engines.diffusion.old_norms import old_norms
from serving.backends.ray.engines.network.seeds import seeded
from serving.backends.ray.tiny import t5
from serving.backends.ray.tiny.oobleck import curved

TOKENS: Final = 64
"""``model_max_length`` of the tokenizer; 128 in the published one."""
CHANGES: Final[Mapping[str, object]] = {
    "limits": {"prompt": 400, "duration_s": 2, "steps": 50},
    "options": {"batch": 4, "steps": 4, "guidance": 7.0},
}
_LATENTS: Final = 32
"""Of 2048 samples each: 1.49 s; 1024 in the published one."""


def make(folder: Path) -> Mapping[str, object]:
    """Write one in the layout of stabilityai/stable-audio-open-1.0."""
    diffusers = library("diffusers")
    with seeded(50), old_norms():
        vae = diffusers.AutoencoderOobleck(
            encoder_hidden_size=4, channel_multiples=[1, 1, 1, 2, 2], decoder_channels=4, decoder_input_channels=8
        )
        transformer = diffusers.StableAudioDiTModel(
            sample_size=_LATENTS, in_channels=8, out_channels=8, num_layers=2, attention_head_dim=8,
            num_attention_heads=4, num_key_value_attention_heads=2, cross_attention_dim=16, time_proj_dim=16,
            global_states_input_dim=32, cross_attention_input_dim=16,
        )  # fmt: skip
        projection = diffusers.StableAudioProjectionModel(
            text_encoder_dim=t5.HIDDEN, conditioning_dim=16, min_value=0, max_value=512
        )
        pipeline = diffusers.StableAudioPipeline(
            vae=curved(vae).eval(), text_encoder=t5.encoder(), projection_model=projection.eval(),
            tokenizer=t5.tokenizer(folder / "tokenizer", TOKENS), transformer=transformer.eval(),
            scheduler=diffusers.CosineDPMSolverMultistepScheduler(sigma_data=1.0, sigma_schedule="exponential"),
        )  # fmt: skip
    t5.save_beside(pipeline, folder)
    return CHANGES
