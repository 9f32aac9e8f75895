"""A tiny LTX-2 checkpoint that makes pictures and sound; called by `reelmesh models tiny` and by tests.

The one invariant: frames, sizes and rates follow the published rules (8k + 1 frames, multiples of 32 pixels, mel frames
of 10 ms, 24 kHz stereo); only widths, depths and bounds are smaller.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from serving.backends.ray.engines.diffusion.loading import library
from serving.backends.ray.engines.network.seeds import seeded
from serving.backends.ray.tiny.gemma import HIDDEN, LAYERS, gemma3, gemma_tokenizer

if TYPE_CHECKING:
    from diffusers import AutoencoderKLLTX2Audio, AutoencoderKLLTX2Video, LTX2VideoTransformer3DModel
    from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder

TOKENS: Final = 32
"""What the text encoder is given; 1024 in the published one."""
_MELS: Final = 8


def make(folder: Path) -> Mapping[str, object]:
    """Write one in the layout of Lightricks/LTX-2; for words and for pictures alike."""
    diffusers = library("diffusers")
    with seeded(40):
        pipeline = diffusers.LTX2Pipeline(
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024,
                max_image_seq_len=4096, shift_terminal=0.1,
            ),
            vae=_video_vae(), audio_vae=_audio_vae(), text_encoder=gemma3(), tokenizer=gemma_tokenizer(TOKENS),
            connectors=_connectors(), transformer=_transformer(), vocoder=_vocoder(),
        )  # fmt: skip
    pipeline.save_pretrained(folder, safe_serialization=True)
    return {
        "limits": {"prompt": 400, "duration_s": 2, "width": 96, "height": 96, "steps": 50},
        "options": {"batch": 4, "steps": 4, "guidance": 4.0, "frames": 17},
    }


def _video_vae() -> "AutoencoderKLLTX2Video":
    diffusers = library("diffusers")
    return diffusers.AutoencoderKLLTX2Video(
        latent_channels=8, block_out_channels=(4, 8, 16, 32), decoder_block_out_channels=(8, 16, 32),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1), spatial_compression_ratio=32,
        temporal_compression_ratio=8, decoder_causal=False,
    ).eval()  # fmt: skip


def _audio_vae() -> "AutoencoderKLLTX2Audio":
    diffusers = library("diffusers")
    return diffusers.AutoencoderKLLTX2Audio(
        base_channels=4, ch_mult=(1, 1, 1), num_res_blocks=1, resolution=32, latent_channels=2, mel_bins=_MELS
    ).eval()


def _transformer() -> "LTX2VideoTransformer3DModel":
    diffusers = library("diffusers")
    return diffusers.LTX2VideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=16, cross_attention_dim=32,
        audio_in_channels=4, audio_out_channels=4, audio_num_attention_heads=2, audio_attention_head_dim=8,
        audio_cross_attention_dim=16, num_layers=2, caption_channels=HIDDEN, rope_type="split",
    ).eval()  # fmt: skip


def _connectors() -> "LTX2TextConnectors":
    diffusers = library("diffusers")
    return diffusers.pipelines.ltx2.LTX2TextConnectors(
        caption_channels=HIDDEN, text_proj_in_factor=LAYERS + 1, video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=16, video_connector_num_layers=1,
        video_connector_num_learnable_registers=16, audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=16, audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=16, connector_rope_base_seq_len=32, rope_type="split",
    ).eval()  # fmt: skip


def _vocoder() -> "LTX2Vocoder":
    """From mel frames of 10 ms to 24 kHz: 240 samples each."""
    diffusers = library("diffusers")
    return diffusers.pipelines.ltx2.LTX2Vocoder(
        in_channels=2 * _MELS, hidden_channels=32, upsample_kernel_sizes=[16, 15, 8, 4, 4],
        resnet_kernel_sizes=[3], resnet_dilations=[[1, 3]],
    ).eval()  # fmt: skip
