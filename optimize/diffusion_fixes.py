"""Cures that networks which denoise need, and what reads for them; optimize.fixes has the others, and says how.

The one invariant: as there, a fix changes how a value is computed while the export runs, never the value.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, cast

import torch
from torch import nn

from optimize.fixes import FIXES, Fix, Replaced, Used, replacing

if TYPE_CHECKING:
    from diffusers import AceStepTransformer1DModel
    from diffusers.models.embeddings import CogVideoXPatchEmbed


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor | None:
    """With zeros where a mask lets nothing be seen, as torch has it; None where no mask says so."""
    if attn_mask is None or attn_mask.dtype != torch.bool:
        return None
    found = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )
    return found.where(attn_mask.any(-1, keepdim=True), 0.0)


def argsort(
    input: torch.Tensor, dim: int = -1, descending: bool = False, *, stable: bool = False
) -> torch.Tensor | None:
    """Stable, of keys that no two places share; None where order does not matter or numbers are no integers."""
    if not stable or input.is_floating_point():
        return None
    length = input.shape[dim]
    places = torch.arange(length, device=input.device)
    places = places.flip(0) if descending else places
    shape = [1] * input.ndim
    shape[dim] = length
    return torch.argsort(input.long() * length + places.reshape(shape), dim, descending)


def _exactly(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor | None]:
    """A function of a tensor and a number, which becomes a tensor of doubles; None where no doubles are asked for."""

    def replaced(input: object, other: object, **named: object) -> torch.Tensor | None:
        doubles = isinstance(input, torch.Tensor) and input.dtype == torch.float64 and isinstance(other, float)
        return function(input, torch.tensor(other, dtype=torch.float64), **named) if doubles else None

    return replaced


def _doubles(module: nn.Module, used: Used) -> Replaced:
    products: list[object] = [torch.mul, torch.Tensor.mul, torch.Tensor.__mul__]
    quotients: list[object] = [torch.div, torch.Tensor.div, torch.Tensor.__truediv__]
    return Replaced(
        {**dict.fromkeys(products, _exactly(torch.mul)), **dict.fromkeys(quotients, _exactly(torch.div))}, used
    )


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
    """As diffusers' CogVideoXPatchEmbed makes them, (1, tokens, width), without writing to ``.data``."""
    from diffusers.models.embeddings import get_3d_sincos_pos_embed

    used()
    latents = (frames - 1) // part.temporal_compression_ratio + 1
    sizes = (width // part.patch_size, height // part.patch_size)
    scales = (part.spatial_interpolation_scale, part.temporal_interpolation_scale)
    positions = get_3d_sincos_pos_embed(part.embed_dim, sizes, latents, *scales, device=device).flatten(0, 1)
    return torch.cat([positions.new_zeros(part.max_text_seq_length, part.embed_dim), positions]).unsqueeze(0)


@contextmanager
def _undivided(module: nn.Module, used: Used) -> Iterator[None]:
    with ExitStack() as stack:
        for part in module.modules():
            if type(part).__name__ == "CogVideoXSafeConv3d":
                stack.enter_context(_put(part, forward=partial(nn.Conv3d.forward, cast("nn.Conv3d", part))))
                used()
        yield


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


ATTENTION: Final = Fix(
    "attention",
    "what may look at nothing, such as padding on the left, gets a mean of everything instead of zeros (Gemma)",
    replacing(torch.nn.functional.scaled_dot_product_attention, by=attention),
)
ARGSORT: Final = Fix(
    "argsort",
    "a stable sort has no translation: integers are sorted by keys that tell equal ones apart (LTX-2)",
    replacing(torch.argsort, torch.Tensor.argsort, by=argsort),
)
DOUBLES: Final = Fix(
    "doubles",
    "a number that doubles are multiplied by becomes a float, and angles of 15,000 tell of its last bits (LTX-2)",
    _doubles,
)
JOINED_POSITIONS: Final = Fix(
    "joined_positions",
    "positions written into the `.data` of zeros become a constant without numbers: both are joined (CogVideoX)",
    _joined_positions,
)
UNDIVIDED: Final = Fix(
    "undivided",
    "whether a convolution is divided by frames rests on bytes, which are no number yet: it is whole (CogVideoX)",
    _undivided,
)
WHOLE_PATCHES: Final = Fix(
    "whole_patches",
    "whether a length is padded is decided while tracing, once for all lengths: it is padded always (ACE-Step)",
    _whole_patches,
)
_MORE: Final = (ATTENTION, ARGSORT, DOUBLES, JOINED_POSITIONS, UNDIVIDED, WHOLE_PATCHES)
ALL_FIXES: Final[Mapping[str, Fix]] = {**FIXES, **{fix.name: fix for fix in _MORE}}
"""All there are, by name."""
