"""Records the calls of modules while their engine answers requests: what parts are exported from and measured by.

The one invariant: what is recorded was really asked and answered by the network; nothing is made up.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pydantic import JsonValue

from serving.backends.ray.parts.adapters import adapter_of
from serving.backends.ray.parts.calls import Tensors, bound, flatten, key_of

if TYPE_CHECKING:
    import torch
    from torch import nn

MOST_CALLS: Final = 24
"""Calls of one kind that are kept; those of sizes that were not seen come first."""
_OF_ONE_SIZE: Final = 3


Sizes = tuple[tuple[str, tuple[int, ...]], ...]
"""Shapes of a call's tensors, with their names."""


def sizes_of(tensors: Tensors) -> Sizes:
    """Of a call's tensors."""
    return tuple((name, tuple(tensor.shape)) for name, tensor in tensors.items())


@dataclass(frozen=True)
class RecordedCall:
    """One call of a module.

    Attributes:
        call: tree of the arguments.
        answer: tree of what came back; tensors that were handed through have their inputs' names.
        inputs: flat tensors.
        outputs: flat tensors, of the answer alone.
    """

    call: JsonValue
    answer: JsonValue
    inputs: Tensors
    outputs: Tensors

    @property
    def key(self) -> str:
        """Equal for calls that one variant answers."""
        return key_of(self.call)

    @property
    def sizes(self) -> "Sizes":
        """Equal for calls whose tensors have equal sizes."""
        return sizes_of(self.inputs)


@dataclass
class Recorder:
    """Keeps calls of one module, at most :data:`MOST_CALLS` of each kind, few of each size.

    A decoder with a cache is asked token by token, each time with one more in the cache: of such a run the calls 0, 1,
    2, 4, 8 and so on are kept, so that one text does not take the room of all others.

    Attributes:
        adapter: of the part.
        calls: in the order in which they came.
        seen: how many there were.
    """

    adapter: str | None = None
    calls: list[RecordedCall] = field(default_factory=list)
    seen: int = 0
    _asked: tuple[JsonValue, Tensors] | None = None
    _runs: dict[str, tuple[Sizes, int]] = field(default_factory=dict)

    def before(self, module: "nn.Module", args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        """Take down the arguments, before the module changes them."""
        tensors: Tensors = {}
        arguments = adapter_of(self.adapter)(module, bound(module, args, kwargs))
        tree = flatten(arguments, "", tensors)
        self._asked = (tree, tensors)

    def after(
        self, module: "nn.Module", args: tuple[object, ...], kwargs: Mapping[str, object], answer: object
    ) -> None:
        """Take down the answer, if calls of this kind are wanted still."""
        assert self._asked is not None  # noqa: S101 - before comes before
        (tree, inputs), self._asked = self._asked, None
        self.seen += 1
        if not self._wanted(key_of(tree), sizes_of(inputs)):
            return
        every = dict(inputs)
        told = flatten(answer, "output", every)
        outputs = {name: tensor for name, tensor in every.items() if name not in inputs}
        self.calls.append(RecordedCall(tree, told, _copies(inputs), _copies(outputs)))

    def _wanted(self, key: str, sizes: Sizes) -> bool:
        before, length = self._runs.get(key, ((), 0))
        length = length + 1 if _is_next(before, sizes) else 0
        self._runs[key] = (sizes, length)
        kept = [call.sizes for call in self.calls if call.key == key]
        return len(kept) < MOST_CALLS and kept.count(sizes) < _OF_ONE_SIZE and length & (length - 1) == 0


@contextmanager
def recording(modules: Mapping[str, "nn.Module"], adapters: Mapping[str, str | None]) -> Iterator[dict[str, Recorder]]:
    """Record calls of modules, by name, as long as this is open.

    Args:
        modules: of a loaded engine.
        adapters: of their parts.
    """
    recorders = {name: Recorder(adapters.get(name)) for name in modules}
    handles = []
    for name, module in modules.items():
        recorder = recorders[name]
        handles.append(module.register_forward_pre_hook(recorder.before, with_kwargs=True, prepend=True))
        handles.append(module.register_forward_hook(recorder.after, with_kwargs=True))
    try:
        yield recorders
    finally:
        for handle in handles:
            handle.remove()


def _is_next(before: Sizes, sizes: Sizes) -> bool:
    """Whether a call's tensors are those of the one before, or longer by one."""
    grown = [
        size - other
        for (_, shape), (_, earlier) in zip(sizes, before, strict=False)
        for size, other in zip(shape, earlier, strict=False)
    ]
    return set(grown) == {0, 1}


def _copies(tensors: Mapping[str, "torch.Tensor"]) -> Tensors:
    """Numbers as they are now, on the host; none of inference mode, which an exporter cannot take."""
    import torch

    with torch.inference_mode(False), torch.no_grad():
        return {name: torch.empty_like(t, device="cpu").copy_(t.detach()) for name, t in tensors.items()}
