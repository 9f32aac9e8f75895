"""Tiny CogVideoX checkpoints: from text (2B's layout), from text with rotary positions (5B's), and from a picture.

Called by `reelmesh models tiny` and by tests. The one invariant: frames, sizes and tokens follow the published rules
(4k + 1 frames, multiples of 16 pixels); only widths, depths and bounds are smaller.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from serving.backends.ray.engines.diffusion.loading import library
from serving.backends.ray.engines.network.seeds import seeded
from serving.backends.ray.tiny import t5

if TYPE_CHECKING:
    from diffusers import AutoencoderKLCogVideoX, CogVideoXDPMScheduler, CogVideoXTransformer3DModel

TOKENS: Final = 24
"""What the transformer reads; 226 in the published ones."""
_NOISE: Final[Mapping[str, object]] = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}


def make_2b(folder: Path) -> Mapping[str, object]:
    """Write one in the layout of CogVideoX-2b: positions are sines, the scheduler is DDIM."""
    diffusers = library("diffusers")
    with seeded(20):
        scheduler = diffusers.CogVideoXDDIMScheduler(**_NOISE)
        pipeline = diffusers.CogVideoXPipeline(
            **_texts(folder), vae=_vae(), transformer=_transformer(), scheduler=scheduler
        )
    t5.save_beside(pipeline, folder)
    return _changes()


def make_5b(folder: Path) -> Mapping[str, object]:
    """Write one in the layout of CogVideoX-5b: rotary positions, the scheduler is DPM."""
    with seeded(21):
        transformer = _transformer(use_rotary_positional_embeddings=True)
        pipeline = library("diffusers").CogVideoXPipeline(
            **_texts(folder), vae=_vae(), transformer=transformer, scheduler=_dpm()
        )
    t5.save_beside(pipeline, folder)
    return _changes()


def make_5b_i2v(folder: Path) -> Mapping[str, object]:
    """Write one in the layout of CogVideoX-5b-I2V: learned and rotary positions, so one size and length alone."""
    with seeded(22):
        transformer = _transformer(
            in_channels=8, use_rotary_positional_embeddings=True, use_learned_positional_embeddings=True
        )
        pipeline = library("diffusers").CogVideoXImageToVideoPipeline(
            **_texts(folder), vae=_vae(invert_scale_latents=True), transformer=transformer, scheduler=_dpm()
        )
    t5.save_beside(pipeline, folder)
    return _changes(48, 32)


def _texts(folder: Path) -> Mapping[str, object]:
    """What reads the prompt."""
    return {"tokenizer": t5.tokenizer(folder / "tokenizer", TOKENS), "text_encoder": t5.encoder()}


def _dpm() -> "CogVideoXDPMScheduler":
    """The schedule of the 5Bs."""
    return library("diffusers").CogVideoXDPMScheduler(**_NOISE, snr_shift_scale=1.0, timestep_spacing="trailing")


def _changes(width: int = 64, height: int = 64) -> Mapping[str, object]:
    return {
        "limits": {"prompt": 400, "duration_s": 2, "width": width, "height": height, "steps": 50},
        "options": {"batch": 4, "steps": 4, "guidance": 6.0, "frames": 17},
    }


def _vae(**changes: object) -> "AutoencoderKLCogVideoX":
    """Its tiles are half the sample's sides, and must divide by the sixths and fifths in which they overlap."""
    diffusers = library("diffusers")
    return diffusers.AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2,
        sample_height=96, sample_width=80, **changes,
    ).eval()  # fmt: skip


def _transformer(**changes: object) -> "CogVideoXTransformer3DModel":
    diffusers = library("diffusers")
    config: dict[str, object] = {
        "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4, "time_embed_dim": 8,
        "text_embed_dim": t5.HIDDEN, "num_layers": 2, "sample_width": 6, "sample_height": 4, "sample_frames": 9,
        "max_text_seq_length": TOKENS,
    }  # fmt: skip
    return diffusers.CogVideoXTransformer3DModel(**{**config, **changes}).eval()
