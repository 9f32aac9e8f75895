"""The words of the Open Inference Protocol: datatypes, tensors, requests and responses, whatever the wire.

The one invariant: a Tensor holds its elements in the protocol's raw form (little-endian, row-major; BYTES
elements behind a 4-byte length), and that data fits its shape: checked once, where the tensor is made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from struct import Struct
from typing import Any, Final, NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt

from serving.errors import BadInput
from serving.protocol.licences import COMMERCIAL, Use

Parameter = bool | int | float | str
Parameters = Mapping[str, Parameter]
Raw = bytes | memoryview

MAX_DIMS: Final = 32
"""Most dimensions of a tensor; numpy's own older bound, far above any model's."""
MAX_ELEMENTS: Final = 2**63 - 1
"""Shapes are int64 on the wire; a product beyond it is refused before anything is allocated."""
MAX_NAME_CHARS: Final = 256
LENGTH_PREFIX_BYTES: Final = 4
MAX_STRINGS: Final = 1 << 22
"""Most elements of a BYTES tensor: each is an object of its own, many times the four bytes that an empty one takes."""
_LENGTH_PREFIX: Final = Struct("<I")


class Datatype(NamedTuple):
    """Bytes per element (None: each element carries its length), numpy's type and config.pbtxt's name."""

    size_bytes: int | None
    numpy: np.dtype[Any]
    config: str


def _datatype(numpy: Any, config: str) -> Datatype:  # noqa: ANN401  whatever names a type to numpy
    dtype = np.dtype(numpy)
    return Datatype(None if dtype.hasobject else dtype.itemsize, dtype, config)


DATATYPES: Final[Mapping[str, Datatype]] = {
    "BOOL": _datatype("?", "TYPE_BOOL"),
    "UINT8": _datatype("u1", "TYPE_UINT8"),
    "UINT16": _datatype("<u2", "TYPE_UINT16"),
    "UINT32": _datatype("<u4", "TYPE_UINT32"),
    "UINT64": _datatype("<u8", "TYPE_UINT64"),
    "INT8": _datatype("i1", "TYPE_INT8"),
    "INT16": _datatype("<i2", "TYPE_INT16"),
    "INT32": _datatype("<i4", "TYPE_INT32"),
    "INT64": _datatype("<i8", "TYPE_INT64"),
    "FP16": _datatype("<f2", "TYPE_FP16"),
    "BF16": _datatype(ml_dtypes.bfloat16, "TYPE_BF16"),
    "FP32": _datatype("<f4", "TYPE_FP32"),
    "FP64": _datatype("<f8", "TYPE_FP64"),
    "BYTES": _datatype("O", "TYPE_STRING"),
}
"""By the protocol's name. BF16 is ml_dtypes' type, as in tritonclient."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a model says of one input or output; ``-1`` in ``shape`` is any size, batch dimension included."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """One input or output with its elements.

    Args:
        name: as the model's config.pbtxt has it.
        datatype: a key of :data:`DATATYPES`.
        shape: sizes, batch dimension first where the model has one; empty for a scalar.
        data: the elements in raw form.
        parameters: the tensor's own parameters, for example ``classification``.

    Raises:
        BadInput: the datatype is unknown, the shape is not possible or the data does not fit it.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Raw
    parameters: Parameters = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the data against datatype and shape."""
        elements = check_shape(self.name, self.datatype, self.shape)
        size = DATATYPES[self.datatype].size_bytes
        if size is None:
            check_elements(self.name, self.data, elements)
        elif elements * size != len(self.data):
            raise BadInput(
                f"{len(self.data)} bytes of data for input or output '{self.name}', "
                f"expecting {elements * size} for shape {list(self.shape)} of {self.datatype}",
                field=self.name,
            )

    @classmethod
    def from_array(cls, name: str, array: npt.NDArray[Any], datatype: str | None = None) -> "Tensor":
        """Make a tensor of an array; strings and objects become BYTES, ``datatype`` converts numbers."""
        datatype = datatype or datatype_of(array)
        if datatype == "BYTES":
            elements = [_as_bytes(element) for element in array.reshape(-1).tolist()]
            return cls.from_elements(name, elements, array.shape)
        raw = np.ascontiguousarray(array, dtype=DATATYPES[datatype].numpy)
        return cls(name, datatype, array.shape, raw.tobytes())

    @classmethod
    def from_elements(cls, name: str, elements: Sequence[bytes], shape: Sequence[int] | None = None) -> "Tensor":
        """Make a BYTES tensor; without ``shape`` it has one dimension."""
        pieces: list[bytes] = []
        for element in elements:
            pieces += (len(element).to_bytes(LENGTH_PREFIX_BYTES, "little"), element)
        return cls(name, "BYTES", tuple(shape) if shape is not None else (len(elements),), b"".join(pieces))

    def elements(self) -> list[bytes]:
        """The elements of a BYTES tensor, row-major."""
        if self.datatype != "BYTES":
            raise BadInput(f"'{self.name}' holds {self.datatype}, not BYTES", field=self.name)
        view, position, found = memoryview(self.data), 0, []
        for _ in range(prod(self.shape)):
            start = position + LENGTH_PREFIX_BYTES
            position = start + _LENGTH_PREFIX.unpack_from(view, position)[0]
            found.append(bytes(view[start:position]))
        return found

    def array(self) -> npt.NDArray[Any]:
        """The elements in ``shape``: a read-only view of the data, except for BYTES (an array of objects)."""
        if self.datatype == "BYTES":
            values = np.empty(prod(self.shape), dtype=object)
            values[:] = self.elements()
            return values.reshape(self.shape)
        return np.frombuffer(self.data, dtype=DATATYPES[self.datatype].numpy).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output the client asked for, with parameters such as ``binary_data`` or ``classification``."""

    name: str
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One inference request, whatever wire it came by.

    Args:
        model_name: which model.
        model_version: empty for the newest.
        id: the client's own, sent back.
        parameters: of the request, reserved names among them.
        inputs: tensors.
        outputs: those wanted, in order; none means all of the model's.
        deadline_unix_s: when nobody waits for the answer any more; from the wire's deadline and ``timeout``.
        use: what the answer is for; from the wire's header or metadata.
    """

    model_name: str
    model_version: str = ""
    id: str = ""
    parameters: Parameters = field(default_factory=dict)
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[RequestedOutput, ...] = ()
    deadline_unix_s: float | None = None
    use: Use = COMMERCIAL

    def input(self, name: str) -> Tensor | None:
        """The input of that name."""
        return next((tensor for tensor in self.inputs if tensor.name == name), None)

    def wants(self, output: str) -> bool:
        """Whether the client wants this output back."""
        return not self.outputs or any(wanted.name == output for wanted in self.outputs)


@dataclass(frozen=True, slots=True)
class InferResponse:
    """One inference response."""

    model_name: str
    model_version: str = "1"
    id: str = ""
    parameters: Parameters = field(default_factory=dict)
    outputs: tuple[Tensor, ...] = ()


def check_shape(name: str, datatype: str, shape: Sequence[int]) -> int:
    """Number of elements; raises :class:`BadInput` for an unknown datatype or an impossible shape."""
    if datatype not in DATATYPES:
        raise BadInput(
            f"'{datatype[:32]}' is not a datatype, for '{name}'",
            field=name,
            fix=f"one of {', '.join(DATATYPES)}",
        )
    if len(shape) > MAX_DIMS:
        raise BadInput(f"shape of '{name}' has {len(shape)} dimensions, more than {MAX_DIMS}", field=name)
    if min(shape, default=0) < 0:
        raise BadInput(f"shape of '{name}' has a negative size: {list(shape)}", field=name)
    elements = prod(shape)
    # A size of 0 hides what the others come to.
    nonzero = elements or prod(size or 1 for size in shape)
    if nonzero * (DATATYPES[datatype].size_bytes or 1) > MAX_ELEMENTS:
        raise BadInput(f"shape of '{name}' is too large: its size does not fit 63 bits", field=name)
    return elements


def check_elements(name: str, data: Raw, count: int, *, whole: bool = True) -> int:
    """Where ``count`` BYTES elements end; raises :class:`BadInput` on misfit.

    Without ``whole``, bytes may be left behind the elements, as in a region of shared memory.
    """
    if count * LENGTH_PREFIX_BYTES > len(data):
        raise BadInput(f"too few bytes for the {count} BYTES elements of '{name}': {len(data)}", field=name)
    if count > MAX_STRINGS:
        raise BadInput(f"'{name}' has {count} BYTES elements, more than {MAX_STRINGS}", field=name)
    position, total, length_at = 0, len(data), _LENGTH_PREFIX.unpack_from
    for index in range(count):
        if total - position < LENGTH_PREFIX_BYTES:
            raise BadInput(f"element {index} of '{name}' lacks its 4-byte length prefix", field=name)
        length = length_at(data, position)[0]
        position += LENGTH_PREFIX_BYTES + length
        if position > total:
            raise BadInput(f"element {index} of '{name}' claims {length} bytes, past the end", field=name)
    if whole and position != total:
        raise BadInput(f"{total - position} bytes are left after {count} elements of '{name}'", field=name)
    return position


def datatype_of(array: npt.NDArray[Any]) -> str:
    """The protocol's name of a numpy array's type; raises :class:`BadInput` when there is none."""
    if array.dtype.kind in "OSU":
        return "BYTES"
    wanted = array.dtype.newbyteorder("<")
    for name, datatype in DATATYPES.items():
        if wanted == datatype.numpy:
            return name
    raise BadInput(f"numpy type {array.dtype} has no datatype in the protocol")


def _as_bytes(element: object) -> bytes:
    return element if isinstance(element, bytes) else str(element).encode()
