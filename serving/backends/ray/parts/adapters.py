"""Rewrites calls whose plain numbers say what a tensor could say, before they are flattened; named in ``part.json``.

The one invariant: a rewritten call means the same to the module.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from serving.errors import BadInput

if TYPE_CHECKING:
    from torch import nn

Arguments = dict[str, object]
Adapter = Callable[["nn.Module", Arguments], Arguments]


def as_is(module: "nn.Module", arguments: Arguments) -> Arguments:
    """Nothing is rewritten."""
    return arguments


def without_guidance(module: "nn.Module", arguments: Arguments) -> Arguments:
    """MusicGen's text encoder is told the guidance of each request, of which it makes nothing."""
    return {name: value for name, value in arguments.items() if name != "guidance_scale"}


ADAPTERS: Final[Mapping[str, Adapter]] = {"without_guidance": without_guidance}
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
