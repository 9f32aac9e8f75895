"""What tiny Oobleck decoders have as if they were trained; used by the makers of Stable Audio and ACE-Step.

The one invariant: no curve is at its start, zero, so that an export that lost one gives other sound.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import AutoencoderOobleck


def curved(vae: "AutoencoderOobleck") -> "AutoencoderOobleck":
    """The same, with curves (Snake's alpha and beta, logarithms of slopes) that differ by channel."""
    import torch

    for name, held in vae.named_parameters():
        if name.endswith((".alpha", ".beta")):
            torch.nn.init.normal_(held, std=0.3)
    return vae
