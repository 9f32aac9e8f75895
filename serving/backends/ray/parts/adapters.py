"""Rewrites calls whose plain numbers say what a tensor could say, before they are flattened; named in ``part.json``.

The one invariant: a rewritten call means the same to the module.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, cast

from serving.backends.ray.parts.calls import SizeOf
from serving.errors import BadInput

if TYPE_CHECKING:
    import torch
    from torch import nn

Arguments = dict[str, object]
Adapter = Callable[["nn.Module", Arguments], Arguments]


def as_is(module: "nn.Module", arguments: Arguments) -> Arguments:
    """Nothing is rewritten."""
    return arguments


def control_scale(module: "nn.Module", arguments: Arguments) -> Arguments:
    """A ControlNet's weight as a tensor without axes, float32: each request has its own."""
    import torch

    others = {name: value for name, value in arguments.items() if name != "conditioning_scale"}
    device = cast("torch.Tensor", arguments["sample"]).device
    scale = torch.as_tensor(arguments.get("conditioning_scale", 1.0), dtype=torch.float32, device=device)
    return {**others, "conditioning_scale": scale}


def frames_told(module: "nn.Module", arguments: Arguments) -> Arguments:
    """Stable Video Diffusion's decoder is told twice how many frames there are: by a number, and by a tensor's size."""
    return {**arguments, "num_frames": SizeOf("image_only_indicator", 1)}


ADAPTERS: Final[Mapping[str, Adapter]] = {"control_scale": control_scale, "frames_told": frames_told}
"""By name, as parts declare them."""


def adapter_of(name: str | None) -> Adapter:
    """The adapter of a name; :func:`as_is` of None.

    Raises:
        BadInput: there is none of that name.
    """
    if name is None:
        return as_is
    if name not in ADAPTERS:
        raise BadInput(f"there is no adapter {name!r}", field="adapter", fix="publish the part again")
    return ADAPTERS[name]
