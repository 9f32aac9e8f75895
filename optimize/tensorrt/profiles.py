"""Optimisation profiles from the shapes that a part was called with; used by build and by ONNX Runtime's provider.

The one invariant: every captured case fits into one of the profiles, and no size beyond those of the cases is promised.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple, Protocol

from serving.errors import BadInput
from serving.repository.plan_file import PlanTensor, Profile, Range

Sizes = Mapping[str, int]
"""Size of every dynamic axis in one case, by the axis' name."""


class Declared(Protocol):
    """A tensor as parts and recipes declare it: numpy's name of the dtype, and axes of which a str is dynamic."""

    @property
    def name(self) -> str:
        """In the ONNX file."""

    @property
    def dtype(self) -> str:
        """``float32``, ``bfloat16``, ..."""

    @property
    def axes(self) -> Sequence[int | str]:
        """Sizes and names."""


class Declaration(NamedTuple):
    """The tensors of an ONNX file and the sizes it was captured with.

    Attributes:
        inputs: in the file's order.
        outputs: in the file's order.
        sizes: of every captured case.
        optimum: sizes to be fastest at, by axis; axes that it leaves out take their most frequent size.
    """

    inputs: Sequence[Declared]
    outputs: Sequence[Declared]
    sizes: Sequence[Sizes]
    optimum: Sizes = MappingProxyType({})


def plan_tensors(declared: Sequence[Declared]) -> tuple[PlanTensor, ...]:
    """The same tensors as a plan's description holds them."""
    return tuple(PlanTensor(name=one.name, dtype=one.dtype, axes=tuple(one.axes)) for one in declared)


def sizes_of(inputs: Sequence[Declared], shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """The size of every dynamic axis in a captured call.

    Args:
        inputs: as declared.
        shapes: of the call's tensors, by name.

    Raises:
        BadInput: a tensor has other axes than declared, or one axis has two sizes.
    """
    found: dict[str, int] = {}
    for tensor in inputs:
        shape = tuple(shapes[tensor.name])
        if len(shape) != len(tensor.axes):
            raise BadInput(
                f"has {len(shape)} axes", field=tensor.name, fix=f"declare {len(shape)} axes, or capture again"
            )
        for axis, size in zip(tensor.axes, shape, strict=True):
            known = axis if isinstance(axis, int) else found.setdefault(axis, size)
            if known != size:
                fix = "declare axes of different sizes under different names"
                raise BadInput(f"axis {axis!r} has size {size}, and {known} elsewhere", field=tensor.name, fix=fix)
    return found


def profiles(declaration: Declaration, count: int = 1) -> tuple[Profile, ...]:
    """Profiles that take every captured case.

    Several profiles split the cases by their number of input elements, smallest first, so that small calls do not pay
    for kernels that were chosen for large ones.

    Args:
        declaration: of the part.
        count: most profiles to make; fewer where there are fewer different cases.

    Raises:
        BadInput: no case was captured, a case lacks an axis or has a size below 1, or the optimum lies outside.
    """
    axes = _dynamic(declaration.inputs)
    cases = _checked(declaration, axes)
    if count < 1:
        raise BadInput(f"{count} profiles", field="profiles", fix="ask for 1 or more")
    distinct = sorted({tuple(case[axis] for axis in axes) for case in cases}, key=_elements(declaration, axes))
    found = []
    for group in _chunks(distinct, min(count, len(distinct))):
        # A case counts as often as it was captured; equal ones stay in one profile.
        mine = [case for case in cases if tuple(case[axis] for axis in axes) in group]
        found.append(_profile(declaration, axes, mine))
    return tuple(found)


def _dynamic(tensors: Sequence[Declared]) -> list[str]:
    return list(dict.fromkeys(axis for tensor in tensors for axis in tensor.axes if isinstance(axis, str)))


def _checked(declaration: Declaration, axes: Sequence[str]) -> list[Sizes]:
    if not declaration.sizes:
        raise BadInput("no case was captured", field="sizes", fix="run a sample request through the model first")
    for index, case in enumerate(declaration.sizes):
        for axis in axes:
            if axis not in case:
                raise BadInput(
                    f"case {index} does not say the size of axis {axis!r}", field=f"sizes[{index}]", fix="add it"
                )
            if case[axis] < 1:
                fix = "capture a call with at least one element"
                raise BadInput(f"axis {axis!r} has size {case[axis]}", field=f"sizes[{index}]", fix=fix)
    for axis, size in declaration.optimum.items():
        seen = [case[axis] for case in declaration.sizes if axis in case]
        if not seen or not min(seen) <= size <= max(seen):
            between = (
                f"use a size from {min(seen)} to {max(seen)}" if seen else f"there are: {', '.join(axes) or 'none'}"
            )
            raise BadInput(f"axis {axis!r} is nowhere {size}", field=f"optimum.{axis}", fix=between)
    return list(declaration.sizes)


def _profile(declaration: Declaration, axes: Sequence[str], cases: Sequence[Sizes]) -> Profile:
    low = {axis: min(case[axis] for case in cases) for axis in axes}
    high = {axis: max(case[axis] for case in cases) for axis in axes}
    best = _frequent(declaration, axes, cases)
    for axis, size in declaration.optimum.items():
        best[axis] = min(max(size, low[axis]), high[axis])
    return {
        tensor.name: Range(min=_shape(tensor, low), opt=_shape(tensor, best), max=_shape(tensor, high))
        for tensor in declaration.inputs
    }


def _frequent(declaration: Declaration, axes: Sequence[str], cases: Sequence[Sizes]) -> dict[str, int]:
    """Sizes of the most frequent case as a whole, since sizes of several cases need not go together.

    Of equally frequent ones the largest, whose calls take the most time.
    """
    elements = _elements(declaration, axes)
    counted = Counter(tuple(case[axis] for axis in axes) for case in cases)
    key = max(counted, key=lambda key: (counted[key], elements(key)))
    return dict(zip(axes, key, strict=True))


def _shape(tensor: Declared, sizes: Sizes) -> tuple[int, ...]:
    return tuple(axis if isinstance(axis, int) else sizes[axis] for axis in tensor.axes)


def _elements(declaration: Declaration, axes: Sequence[str]) -> Callable[[tuple[int, ...]], int]:
    """How many numbers a call has, by the sizes of its axes."""
    return lambda key: sum(
        math.prod(_shape(tensor, dict(zip(axes, key, strict=True)))) for tensor in declaration.inputs
    )


def _chunks(rows: Sequence[tuple[int, ...]], count: int) -> list[Sequence[tuple[int, ...]]]:
    """``count`` neighbouring groups whose lengths differ by one at most."""
    edges = [index * len(rows) // count for index in range(count + 1)]
    return [rows[start:end] for start, end in pairwise(edges)]
