"""Calibration feeds: captured real inputs of a part, checked before minutes are spent; read by optimize.int8.

The one invariant: what passes :func:`check_feeds` can be run, and at least one input of it varies.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from onnxruntime.quantization import CalibrationDataReader

from serving.errors import BadInput

if TYPE_CHECKING:
    from onnx import GraphProto

Array = npt.NDArray[np.generic]
Feed = Mapping[str, Array]
"""One call of the part: every input by its name."""

CAPTURE = "capture the part's calls in real requests of its task again"


class Input(NamedTuple):
    """One input of a graph; ``shape`` has an int where an axis is fixed, else the axis' name."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | str, ...]

    def admits(self, shape: Sequence[int]) -> bool:
        """Whether rank and fixed axes are as declared."""
        return len(shape) == len(self.shape) and all(
            isinstance(axis, str) or axis == size for axis, size in zip(self.shape, shape, strict=True)
        )


def inputs_of(graph: "GraphProto") -> tuple[Input, ...]:
    """The graph's inputs, without initializers that older exporters list among them."""
    from onnx import helper

    weights = {tensor.name for tensor in graph.initializer}
    found = []
    for value in graph.input:
        if value.name not in weights:
            tensor = value.type.tensor_type
            shape = tuple(
                int(dim.dim_value) if dim.HasField("dim_value") else (dim.dim_param or f"axis {index}")
                for index, dim in enumerate(tensor.shape.dim)
            )
            found.append(Input(value.name, helper.tensor_dtype_to_np_dtype(tensor.elem_type), shape))
    return tuple(found)


def check_feeds(inputs: Sequence[Input], feeds: Sequence[Feed]) -> None:
    """Refuse feeds that cannot calibrate a graph.

    Raises:
        BadInput: there is no feed; an input is missing, unknown, of another type or shape, or not finite; or nothing
            varies, so that every range would be a point. ``field`` is ``feeds[INDEX].NAME``.
    """
    if not feeds:
        raise BadInput("there are no calibration feeds", field="feeds", fix=CAPTURE)
    declared = {entry.name: entry for entry in inputs}
    for index, feed in enumerate(feeds):
        _check_names(declared, feed, f"feeds[{index}]")
        for name, entry in declared.items():
            _check_array(entry, feed[name], f"feeds[{index}].{name}")
    _check_variety(inputs, feeds)


def _check_names(declared: Mapping[str, Input], feed: Feed, field: str) -> None:
    missing, unknown = sorted(declared.keys() - feed.keys()), sorted(feed.keys() - declared.keys())
    for name in missing:
        raise BadInput("this input of the graph is missing", field=f"{field}.{name}", fix=CAPTURE)
    for name in unknown:
        known = ", ".join(declared)
        raise BadInput("the graph has no such input", field=f"{field}.{name}", fix=f"its inputs are: {known}")


def _check_array(entry: Input, array: Array, field: str) -> None:
    if array.dtype != entry.dtype:
        fix = f"give {entry.dtype}, as the part was called with"
        raise BadInput(f"the type is {array.dtype}, the graph takes {entry.dtype}", field=field, fix=fix)
    if not entry.admits(array.shape):
        wanted = " x ".join(map(str, entry.shape)) or "a scalar"
        raise BadInput(f"the shape is {array.shape}, the graph takes {wanted}", field=field, fix=CAPTURE)
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        fix = "find the request whose values overflow, and leave it out"
        raise BadInput("there are values that are not finite", field=field, fix=fix)


def _check_variety(inputs: Sequence[Input], feeds: Sequence[Feed]) -> None:
    """Floats decide where there are any with more than one value: ids and sizes say nothing of a range."""
    floats = [
        entry
        for entry in inputs
        if np.issubdtype(entry.dtype, np.floating) and any(feed[entry.name].size > 1 for feed in feeds)
    ]
    looked_at = floats or inputs
    if not any(_varies(feed[entry.name] for feed in feeds) for entry in looked_at):
        names = ", ".join(entry.name for entry in looked_at)
        raise BadInput(
            "every value is the same in every feed, so there is no range", field=f"feeds: {names}", fix=CAPTURE
        )


def _varies(arrays: Iterable[Array]) -> bool:
    filled = [array for array in arrays if array.size]
    return bool(filled) and not all(bool((array == filled[0].flat[0]).all()) for array in filled)


class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Hands the feeds to ONNX Runtime's calibrator, one after the other."""

    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, Array] | None:
        """The next feed, None at the end."""
        feed = next(self._feeds, None)
        return None if feed is None else dict(feed)
