"""A tiny LTX-Video checkpoint, for text and for pictures; called by `reelmesh models tiny` and by tests.

The one invariant: frames and sizes follow the published rules (8k + 1 frames, multiples of 32 pixels); only widths,
depths and bounds are smaller.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from serving.backends.ray.engines.diffusion.loading import library
from serving.backends.ray.engines.network.seeds import seeded
from serving.backends.ray.tiny import t5

TOKENS: Final = 24
"""``model_max_length`` of the tokenizer; 128 in the published one."""


def make(folder: Path) -> Mapping[str, object]:
    """Write one in the layout of Lightricks/LTX-Video; for words and for pictures alike."""
    diffusers = library("diffusers")
    with seeded(30):
        vae = diffusers.AutoencoderKLLTXVideo(
            latent_channels=8, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
            layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1, 1),
        )  # fmt: skip
        transformer = diffusers.LTXVideoTransformer3DModel(
            in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=16, cross_attention_dim=32,
            num_layers=2, caption_channels=t5.HIDDEN,
        )  # fmt: skip
        pipeline = diffusers.LTXPipeline(
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024,
                max_image_seq_len=4096, shift_terminal=0.1,
            ),
            vae=vae.eval(), text_encoder=t5.encoder(), tokenizer=t5.tokenizer(folder / "tokenizer", TOKENS),
            transformer=transformer.eval(),
        )  # fmt: skip
    t5.save_beside(pipeline, folder)
    return {
        "limits": {"prompt": 400, "duration_s": 2, "width": 96, "height": 96, "steps": 50},
        "options": {"batch": 4, "steps": 4, "guidance": 3.0, "frames": 17},
    }
