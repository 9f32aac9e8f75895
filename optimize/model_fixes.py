"""Cures of faults that one network alone runs into; optimize.fixes has those of torch's functions.

The one invariant: as there, a fix changes how a value is computed while the export runs, never the value.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, cast

import torch
from torch import nn

from optimize.fixes import FIXES, Fix, Used

if TYPE_CHECKING:
    from diffusers import AceStepTransformer1DModel
    from diffusers.models.embeddings import CogVideoXPatchEmbed


@contextmanager
def _put(part: nn.Module, **attributes: object) -> Iterator[None]:
    """Attributes of one module's own, as long as this is open."""
    before = {name: vars(part)[name] for name in attributes if name in vars(part)}
    vars(part).update(attributes)
    try:
        yield
    finally:
        for name in attributes:
            del vars(part)[name]
        vars(part).update(before)


@contextmanager
def _joined_positions(module: nn.Module, used: Used) -> Iterator[None]:
    with ExitStack() as stack:
        for part in module.modules():
            if type(part).__name__ == "CogVideoXPatchEmbed":
                positions = partial(_positions, cast("CogVideoXPatchEmbed", part), used)
                stack.enter_context(_put(part, _get_positional_embeddings=positions))
        yield


def _positions(
    part: "CogVideoXPatchEmbed", used: Used, height: int, width: int, frames: int, device: torch.device | None = None
) -> torch.Tensor:
    """As diffusers' CogVideoXPatchEmbed._get_positional_embeddings, (1, tokens, width), without writing to ``.data``."""
    from diffusers.models.embeddings import get_3d_sincos_pos_embed

    used()
    latents = (frames - 1) // part.temporal_compression_ratio + 1
    sizes = (width // part.patch_size, height // part.patch_size)
    scales = (part.spatial_interpolation_scale, part.temporal_interpolation_scale)
    positions = get_3d_sincos_pos_embed(part.embed_dim, sizes, latents, *scales, device=device).flatten(0, 1)
    return torch.cat([positions.new_zeros(part.max_text_seq_length, part.embed_dim), positions]).unsqueeze(0)


@contextmanager
def _whole_patches(module: nn.Module, used: Used) -> Iterator[None]:
    with ExitStack() as stack:
        for part in module.modules():
            if type(part).__name__ == "AceStepTransformer1DModel":
                network = cast("AceStepTransformer1DModel", part)
                padded = partial(_padded, network.proj_in_conv.forward, network.patch_size, used)
                stack.enter_context(_put(network, patch_size=1))  # it pads to nothing itself
                stack.enter_context(_put(network.proj_in_conv, forward=padded))
        yield


def _padded(
    forward: Callable[[torch.Tensor], torch.Tensor], patch: int, used: Used, values: torch.Tensor
) -> torch.Tensor:
    """Patches of (batch, channels, length) whose last one is filled up with zeros, by none where it is whole."""
    used()
    spare = (patch - values.shape[-1] % patch) % patch
    return forward(nn.functional.pad(values, (0, spare)))


JOINED_POSITIONS: Final = Fix(
    "joined_positions",
    "positions written into the `.data` of zeros become a constant without numbers: both are joined (CogVideoX)",
    _joined_positions,
)
WHOLE_PATCHES: Final = Fix(
    "whole_patches",
    "whether a length is padded is decided while tracing, once for all lengths: it is padded always (ACE-Step)",
    _whole_patches,
)
ALL_FIXES: Final[Mapping[str, Fix]] = {**FIXES, **{fix.name: fix for fix in (JOINED_POSITIONS, WHOLE_PATCHES)}}
"""Of torch's functions and of single networks, by name."""
