"""Switches: which memory savers a diffusion pipeline turns on, from the share it holds; asked when one is loaded.

The one invariant: it is pure, and prefers what costs no time: nothing, then slicing and tiling of the decoder, then
sliced attention, then weights that wait on the host.
"""

from dataclasses import dataclass
from typing import Final, Literal

DECODER_SHARE: Final = 0.6
"""Part of the peak above the weights that decoding takes and tiling saves (diffusers' memory guide: SDXL, SVD)."""
ATTENTION_SHARE: Final = 0.2
"""Part of it that sliced attention saves where the attention is not fused."""


@dataclass(frozen=True, slots=True)
class Switches:
    """What to turn on.

    Attributes:
        vae_slicing: decode one picture of a batch at a time.
        vae_tiling: decode in overlapping tiles.
        attention_slicing: compute attention in steps.
        offload: none; ``model``: parts wait on the host until their turn; ``sequential``: layers do.
    """

    vae_slicing: bool = False
    vae_tiling: bool = False
    attention_slicing: bool = False
    offload: Literal["none", "model", "sequential"] = "none"


def switches(weights_bytes: int, largest_part_bytes: int, peak_bytes: int, share_bytes: int | None) -> Switches:
    """Decide.

    Args:
        weights_bytes: of all parts together.
        largest_part_bytes: of the largest of them (UNet or transformer, usually).
        peak_bytes: highest use at the model's bounds without any saver, weights included.
        share_bytes: what there is; None means enough.
    """
    if share_bytes is None or peak_bytes <= share_bytes:
        return Switches()
    work = max(0, peak_bytes - weights_bytes)
    tiled = work * (1 - DECODER_SHARE)
    if weights_bytes + tiled <= share_bytes:
        return Switches(vae_slicing=True, vae_tiling=True)
    sliced = work * (1 - DECODER_SHARE - ATTENTION_SHARE)
    if weights_bytes + sliced <= share_bytes:
        return Switches(vae_slicing=True, vae_tiling=True, attention_slicing=True)
    offload: Literal["model", "sequential"] = "model" if largest_part_bytes + sliced <= share_bytes else "sequential"
    return Switches(vae_slicing=True, vae_tiling=True, attention_slicing=True, offload=offload)
