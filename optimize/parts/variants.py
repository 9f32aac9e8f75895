"""Sorts a part's recorded calls into variants, and wraps its module so that it takes flat tensors; for the exporter.

The one invariant: a variant's fixed axes have one size in all of its calls.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import torch
from torch import nn

from optimize.parts.part import Part
from optimize.recipe import BATCH
from serving.backends.ray.parts.calls import Tensors, collect, rebuild
from serving.backends.ray.parts.capture import RecordedCall
from serving.errors import EngineFailed
from serving.repository.part_file import PartTensor

if TYPE_CHECKING:
    from pydantic import JsonValue

LEAST_SIZES: Final = 3
"""At which a file with axes that vary must hold: the traced one and two others."""


@dataclass(frozen=True)
class Group:
    """The calls of one variant.

    Attributes:
        calls: at least one; the first is the one that is traced.
        inputs: with their dynamic axes.
        outputs: likewise.
        made: of the calls those that were made of recorded ones, to have more rows; they calibrate nothing.
    """

    calls: Sequence[RecordedCall]
    inputs: Sequence[PartTensor]
    outputs: Sequence[PartTensor]
    made: Sequence[RecordedCall] = ()

    @property
    def recorded(self) -> list[RecordedCall]:
        """Calls that the engine really made."""
        made = {id(call) for call in self.made}
        return [call for call in self.calls if id(call) not in made]

    def constant_axes(self) -> list[str]:
        """Names of dynamic axes that have one size in all calls, so that nothing proves them to vary."""
        seen: dict[str, set[int]] = {}
        for call in self.calls:
            for axis, size in sizes_of(self, call).items():
                seen.setdefault(axis, set()).add(size)
        return sorted(axis for axis, sizes in seen.items() if len(sizes) == 1)

    @property
    def traced(self) -> RecordedCall:
        """The call whose sizes the exporter sees."""
        return self.calls[0]

    @property
    def is_dynamic(self) -> bool:
        """Whether any axis varies."""
        return any(isinstance(axis, str) for tensor in self.inputs for axis in tensor.axes)

    def dynamic(self) -> list[dict[int, str]]:
        """For each input its axes that vary."""
        return dynamic_axes(self.inputs)


def dynamic_axes(tensors: Sequence[PartTensor]) -> list[dict[int, str]]:
    """For each tensor its axes that vary, with their names."""
    return [{i: axis for i, axis in enumerate(tensor.axes) if isinstance(axis, str)} for tensor in tensors]


class Flat(nn.Module):
    """A module that takes the flat tensors of a kind of call, by position, and returns those of its answer.

    Args:
        module: the part's.
        group: whose calls it shall take.
    """

    def __init__(self, module: nn.Module, group: Group) -> None:
        super().__init__()
        self.module = module
        self._call: JsonValue = group.traced.call
        self._answer: JsonValue = group.traced.answer
        self._inputs, self._outputs = group.inputs, group.outputs

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Outputs in the variant's order; what has no axes gets one of 1."""
        self._tell_equal_sizes(tensors)
        named = {
            tensor.name: value.reshape(()) if tensor.scalar else value
            for tensor, value in zip(self._inputs, tensors, strict=True)
        }
        arguments = rebuild(self._call, named)
        assert isinstance(arguments, dict)  # noqa: S101 - a call's arguments have names
        found: Tensors = {}
        # Without the hooks, which are the engine's: a part stands in for forward.
        collect(self._answer, self.module.forward(**arguments), found)
        return tuple(found[tensor.name].reshape(1) if tensor.scalar else found[tensor.name] for tensor in self._outputs)

    def _tell_equal_sizes(self, tensors: Sequence[torch.Tensor]) -> None:
        """Axes of one name have one size: an exporter that hears of it later fails at what it made of two before."""
        known: dict[str, int] = {}
        for tensor, value in zip(self._inputs, tensors, strict=True):
            for index, axis in enumerate(tensor.axes):
                if isinstance(axis, str):
                    torch._check(  # type: ignore[no-untyped-call]
                        value.shape[index] == known.setdefault(axis, value.shape[index])
                    )


def groups(part: Part, calls: Sequence[RecordedCall]) -> list[Group]:
    """The variants of a part: calls of one kind, whose fixed axes have equal sizes."""
    sorted_calls: dict[str, list[RecordedCall]] = {}
    for call in calls:
        fixed = {name: _fixed(part, name, tensor) for name, tensor in call.inputs.items()}
        sorted_calls.setdefault(f"{call.key} {fixed}", []).append(call)
    return [_group(part, alike) for alike in sorted_calls.values()]


def feed(group: Group, call: RecordedCall, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """A call's inputs as the file takes them."""
    return [_cast(call.inputs[t.name].reshape(1) if t.scalar else call.inputs[t.name], dtype) for t in group.inputs]


def sizes_of(group: Group, call: RecordedCall) -> dict[str, int]:
    """The sizes of a call's axes that vary, by their names."""
    sizes: dict[str, int] = {}
    for tensor, axes in zip(group.inputs, group.dynamic(), strict=True):
        sizes |= {axis: int(call.inputs[tensor.name].shape[index]) for index, axis in axes.items()}
    return sizes


def distinct_sizes(group: Group) -> list[dict[str, int]]:
    """Of all calls, each once; none where no axis varies."""
    found: list[dict[str, int]] = []
    for call in group.calls:
        sizes = sizes_of(group, call)
        if sizes and sizes not in found:
            found.append(sizes)
    return found


def case_name(group: Group, call: RecordedCall) -> str:
    """The sizes of a call's axes that vary, for people; all shapes where none do."""
    if sizes := sizes_of(group, call):
        return ", ".join(f"{axis} {size}" for axis, size in sizes.items())
    shapes = ("x".join(map(str, call.inputs[tensor.name].shape)) or "1" for tensor in group.inputs)
    return ", ".join(f"{tensor.name} {shape}" for tensor, shape in zip(group.inputs, shapes, strict=True))


def run_flat(flat: Flat, group: Group, tensors: Sequence[torch.Tensor]) -> Tensors:
    """A wrapped module's outputs by name."""
    with torch.inference_mode():
        return {tensor.name: value for tensor, value in zip(group.outputs, flat(*tensors), strict=True)}


def with_batches(group: Group, module: nn.Module) -> Group:
    """The same variant with calls of more rows, made of its traced one, where there were too few sizes.

    Engines ask some parts for one row at a time, such as text encoders; the exporter needs two, since it takes an axis
    of 1 as fixed. Of parts that vary in their rows alone, guidance shows two sizes, and parity needs three. Rows are
    the recorded ones, turned along their last axis, so that they differ.
    """
    axes = [{index for index, axis in found.items() if axis == BATCH} for found in group.dynamic()]
    rows = {group.traced.inputs[t.name].shape[i] for t, found in zip(group.inputs, axes, strict=True) for i in found}
    if not rows or (rows != {1} and len({call.sizes for call in group.calls}) >= LEAST_SIZES):
        return group
    more = [_repeated(group, module, axes, count) for count in (2, 3)]
    calls = [*more, *group.calls] if rows == {1} else [*group.calls, *more]
    return Group(calls, group.inputs, _outputs(group.inputs, calls), made=more)


def _repeated(group: Group, module: nn.Module, axes: Sequence[set[int]], rows: int) -> RecordedCall:
    inputs = {}
    for tensor, found in zip(group.inputs, axes, strict=True):
        value = group.traced.inputs[tensor.name]
        for index in found:
            value = torch.cat([value.roll(turn, -1) if value.dim() > 1 else value for turn in range(rows)], index)
        inputs[tensor.name] = value
    call = RecordedCall(group.traced.call, group.traced.answer, inputs, {})
    return replace(call, outputs=run_flat(Flat(module, group), group, feed(group, call)))


def _cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """States in the precision; see :func:`optimize.parts.precision.at_border`."""
    return tensor.to(dtype) if tensor.dtype == torch.float32 and tensor.dim() > 1 else tensor


def _fixed(part: Part, name: str, tensor: torch.Tensor) -> list[int | None]:
    dynamic = part.dynamic(name, tensor.dim())
    return [None if index in dynamic else size for index, size in enumerate(tensor.shape)]


def _group(part: Part, calls: Sequence[RecordedCall]) -> Group:
    first = max(calls, key=lambda call: _spread(part, call))
    ordered = [first, *(call for call in calls if call is not first)]
    declared = {name: _declared(part, name, ordered) for name in first.inputs}
    inputs = [_tensor(name, tensor, declared[name]) for name, tensor in first.inputs.items()]
    if not first.outputs:
        raise EngineFailed("the module gives back nothing but its inputs", field=part.at)
    return Group(ordered, inputs, _outputs(inputs, ordered))


def _declared(part: Part, name: str, calls: Sequence[RecordedCall]) -> dict[int, str]:
    """An input's axes that vary, but for one that is 1 in every call of this kind: a decoder's step has one token."""
    axes = part.dynamic(name, calls[0].inputs[name].dim())
    sizes = {index: {call.inputs[name].shape[index] for call in calls} for index in axes}
    return {index: axis for index, axis in axes.items() if axis == BATCH or sizes[index] != {1}}


def _spread(part: Part, call: RecordedCall) -> tuple[int, int]:
    """How well a call can be traced: the exporter takes an axis of 1 as fixed, and equal sizes as one axis."""
    sizes: dict[str, int] = {}
    for name, tensor in call.inputs.items():
        sizes |= {axis: tensor.shape[index] for index, axis in part.dynamic(name, tensor.dim()).items()}
    return sum(size > 1 for size in sizes.values()), len(set(sizes.values()))


def _outputs(inputs: Sequence[PartTensor], calls: Sequence[RecordedCall]) -> list[PartTensor]:
    known = {
        axis: [call.inputs[tensor.name].shape[index] for call in calls]
        for tensor, axes in zip(inputs, dynamic_axes(inputs), strict=True)
        for index, axis in axes.items()
    }
    return [_tensor(name, tensor, _varying(name, calls, known)) for name, tensor in calls[0].outputs.items()]


def _varying(name: str, calls: Sequence[RecordedCall], known: Mapping[str, list[int]]) -> dict[int, str]:
    """An output's axes that vary with the calls, named as the input's axis that varies likewise, if there is one."""
    found = {}
    for index in range(calls[0].outputs[name].dim()):
        sizes = [call.outputs[name].shape[index] for call in calls]
        same = next((axis for axis, others in known.items() if others == sizes), None)
        if same is not None and known:
            found[index] = same
        elif len(set(sizes)) > 1:
            found[index] = f"{name.replace('.', '_')}_{index}"
    return found


def _tensor(name: str, tensor: torch.Tensor, dynamic: Mapping[int, str]) -> PartTensor:
    scalar = tensor.dim() == 0
    axes: list[int | str] = [1] if scalar else [dynamic.get(index, size) for index, size in enumerate(tensor.shape)]
    return PartTensor(name=name, dtype=str(tensor.dtype).removeprefix("torch."), axes=axes, scalar=scalar)
