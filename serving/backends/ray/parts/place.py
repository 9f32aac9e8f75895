"""Finds a part's module in a loaded engine, and empties it; used to capture calls and to swap parts in.

The one invariant: an emptied module keeps its class, settings, device and dtype, which pipelines ask for; only its
numbers are gone, and of those none that a module outside shares.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from serving.errors import BadInput

if TYPE_CHECKING:
    import torch
    from torch import nn

_FIX: Final = "name a module of the loaded engine, such as pipeline.unet"


def module_at(engine: object, path: str) -> "nn.Module":
    """The module at a dotted path of attributes, and of numbers in lists.

    Raises:
        BadInput: there is none.
    """
    from torch import nn

    *_, found = _along(engine, path)
    if not isinstance(found, nn.Module):
        raise BadInput(f"the engine has no module at {path!r}", field="at", fix=_FIX)
    return found


def keep(module: "nn.Module") -> None:
    """Mark a module whose numbers are asked for past the part that it belongs to: :func:`empty` leaves them."""
    module.asked_directly = True  # type: ignore[assignment]


def empty(engine: object, path: str) -> int:
    """Let go of the numbers of the module at a path, but for those that others need, too; bytes freed.

    Others are modules of its network that share them, as a translator's embedding is its encoder's, its decoder's and
    that of its scores, and whoever asks a module inside that is marked by :func:`keep`.
    """
    from torch import nn

    module = module_at(engine, path)
    network = next(found for found in _along(engine, path) if isinstance(found, nn.Module))
    inside = set(module.modules())
    outside = [other for other in network.modules() if other not in inside or hasattr(other, "asked_directly")]
    shared = {id(tensor) for other in outside for tensor in _own(other)}
    freed = 0
    for tensor in (*module.parameters(), *module.buffers()):
        if id(tensor) not in shared:
            freed += tensor.numel() * tensor.element_size()
            tensor.data = tensor.data.new_empty(0)
    return freed


@contextmanager
def by_torch(module: "nn.Module") -> Iterator[None]:
    """The module's own forward as long as this is open, for passes that look at what is inside it.

    A part that may stand in for it must keep its numbers (``Part.keeps``).
    """
    swapped = module.__dict__.pop("forward", None)
    try:
        yield
    finally:
        if swapped is not None:
            module.forward = swapped


def _along(engine: object, path: str) -> Iterator[object]:
    """What lies on a path, one after another; None from where there is nothing."""
    from torch import nn

    found: object = engine
    for step in path.split("."):
        if step.isdigit() and isinstance(found, list | tuple | nn.ModuleList | nn.Sequential):
            found = found[int(step)] if int(step) < len(found) else None
        else:
            found = getattr(found, step, None)
        yield found


def _own(module: "nn.Module") -> "tuple[torch.Tensor, ...]":
    return (*module.parameters(recurse=False), *module.buffers(recurse=False))
