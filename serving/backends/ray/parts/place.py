"""Finds a part's module in a loaded engine, and empties it; used to capture calls and to swap parts in.

The one invariant: an emptied module keeps its class, settings, device and dtype, which pipelines ask for; only its
numbers are gone.
"""

from typing import TYPE_CHECKING, Final

from serving.errors import BadInput

if TYPE_CHECKING:
    from torch import nn

_FIX: Final = "name a module of the loaded engine, such as pipeline.unet"


def module_at(engine: object, path: str) -> "nn.Module":
    """The module at a dotted path of attributes, and of numbers in lists.

    Raises:
        BadInput: there is none.
    """
    from torch import nn

    found: object = engine
    for step in path.split("."):
        if step.isdigit() and isinstance(found, list | tuple | nn.ModuleList | nn.Sequential):
            found = found[int(step)] if int(step) < len(found) else None
        else:
            found = getattr(found, step, None)
    if not isinstance(found, nn.Module):
        raise BadInput(f"the engine has no module at {path!r}", field="at", fix=_FIX)
    return found


def keep(module: "nn.Module") -> None:
    """Mark a module whose numbers are asked for past the part that it belongs to: :func:`empty` leaves them."""
    module.asked_directly = True  # type: ignore[assignment]


def empty(module: "nn.Module") -> int:
    """Let go of a module's numbers; bytes that this freed."""
    freed = 0
    kept = {id(held) for one in module.modules() if hasattr(one, "asked_directly") for held in one.parameters()}
    for tensor in (*module.parameters(), *module.buffers()):
        if id(tensor) in kept:
            continue
        freed += tensor.numel() * tensor.element_size()
        tensor.data = tensor.data.new_empty(0)
    return freed
