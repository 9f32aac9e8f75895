"""Rewrites calls whose plain numbers say what a tensor could say, before they are flattened; named in ``part.json``.

The one invariant: a rewritten call means the same to the module.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, cast

from serving.backends.ray.parts.calls import SizeOf
from serving.errors import BadInput

if TYPE_CHECKING:
    import torch
    from diffusers import LTXVideoTransformer3DModel
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


def ltx_coordinates(module: "nn.Module", arguments: Arguments) -> Arguments:
    """LTX-Video's numbers of latent frames, rows and columns as the coordinates of every token.

    ``video_coords`` is float32 (1, 3, tokens), in seconds and pixels: what the network's own grid is before it is
    divided by the sizes that positions count from, so that both give the very same numbers. One row serves all.
    """
    import torch

    sizes = [arguments.get(name) for name in ("num_frames", "height", "width")]
    scale = arguments.get("rope_interpolation_scale")
    if scale is None or None in sizes or "video_coords" in arguments:
        return arguments
    rope = cast("LTXVideoTransformer3DModel", module).rope
    patches = (rope.patch_size_t, rope.patch_size, rope.patch_size)
    device = cast("torch.Tensor", arguments["hidden_states"]).device
    lines = [
        torch.arange(cast("int", size), dtype=torch.float32, device=device) * step * patch
        for size, step, patch in zip(sizes, cast("tuple[float, float, float]", scale), patches, strict=True)
    ]
    coordinates = torch.stack(torch.meshgrid(*lines, indexing="ij")).flatten(1).unsqueeze(0)
    told = ("num_frames", "height", "width", "rope_interpolation_scale")
    return {**{name: value for name, value in arguments.items() if name not in told}, "video_coords": coordinates}


def ltx2_coordinates(module: "nn.Module", arguments: Arguments) -> Arguments:
    """LTX-2's sizes and rate are left out where coordinates, which the network takes instead, say the same."""
    told = {"video_coords": ("num_frames", "height", "width", "fps"), "audio_coords": ("audio_num_frames",)}
    spare = {name for given, names in told.items() if given in arguments for name in names}
    return {name: value for name, value in arguments.items() if name not in spare}


def apart(module: "nn.Module", arguments: Arguments) -> Arguments:
    """A tensor that is handed in under two names is two, as in calls where they differ; no number is copied."""
    import torch

    seen: list[object] = []
    found: Arguments = {}
    for name, value in arguments.items():
        twice = isinstance(value, torch.Tensor) and any(value is other for other in seen)
        found[name] = cast("torch.Tensor", value).view_as(cast("torch.Tensor", value)) if twice else value
        seen.append(value)
    return found


def without_guidance(module: "nn.Module", arguments: Arguments) -> Arguments:
    """MusicGen's text encoder is told the guidance of each request, of which it makes nothing."""
    return {name: value for name, value in arguments.items() if name != "guidance_scale"}


def style_told(module: "nn.Module", arguments: Arguments) -> Arguments:
    """SadTalker's style, a row of a table, as a tensor: one file serves all of them."""
    import torch

    device = cast("torch.Tensor", arguments["mel"]).device
    return {**arguments, "style": torch.as_tensor(arguments["style"], device=device)}


ADAPTERS: Final[Mapping[str, Adapter]] = {
    "apart": apart,
    "control_scale": control_scale,
    "frames_told": frames_told,
    "ltx_coordinates": ltx_coordinates,
    "ltx2_coordinates": ltx2_coordinates,
    "style_told": style_told,
    "without_guidance": without_guidance,
}
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
