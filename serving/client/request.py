"""What a caller passes to an inference as the protocol's request, and that as bytes; used by client.mesh.

The one invariant: arrays are looked at, not copied, until the one join of the message or the write into a region.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2 as pb

from serving.client.regions import Lease
from serving.errors import BadInput, foreign_text, shown
from serving.protocol.oip import DATATYPES, InferRequest, Parameter, Parameters, RequestedOutput, Tensor, datatype_of
from serving.protocol.oip_grpc import write_parameters
from serving.protocol.oip_parameters import check_parameters
from serving.protocol.oip_wire import REQUEST_CONTENTS, join_contents

Array = npt.NDArray[Any]
Given = npt.ArrayLike
"""What a caller passes as a tensor: an array, or what numpy makes one of, in numpy's own choice of dtype."""
Outputs = Sequence[str] | Mapping[str, int]
"""Names of outputs; a mapping gives the number of classes wanted of each, 0 for the tensor itself."""

_FIX: Final = "pass a numpy array of the input's dtype, for example np.asarray(value, np.float32)"

ALIGNED_BYTES: Final = 64
"""Tensors begin at multiples of a cache line, which vector instructions like."""


@dataclass(frozen=True, slots=True)
class Step:
    """One request's place in a sequence, for models with ``sequence_batching``.

    Args:
        id: the same for all requests of the sequence, not 0.
        start: this is the first.
        end: this is the last.
    """

    id: int | str
    start: bool = False
    end: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """Where in a region a tensor lies."""

    offset: int
    size: int


def build_request(
    model: str,
    arrays: Mapping[str, Given],
    *,
    version: str = "",
    request_id: str = "",
    outputs: Outputs = (),
    priority: int | None = None,
    sequence: Step | None = None,
    parameters: Parameters | None = None,
) -> InferRequest:
    """The request; raises :class:`BadInput` for arrays and parameters that the protocol has no form for."""
    chosen: dict[str, Parameter] = dict(parameters or {})
    if priority is not None:
        chosen["priority"] = priority
    if sequence is not None:
        chosen |= {"sequence_id": sequence.id, "sequence_start": sequence.start, "sequence_end": sequence.end}
    return InferRequest(
        model,
        version,
        request_id,
        check_parameters(chosen, "parameters"),
        tuple(_tensor(name, array) for name, array in arrays.items()),
        _requested(outputs),
    )


def plan(
    request: InferRequest, output_bytes: Mapping[str, int], threshold_bytes: int
) -> tuple[dict[str, Placed], dict[str, Placed], int]:
    """Which inputs and outputs go through shared memory, where they lie, and how much of it they take together.

    Args:
        request: with all its inputs.
        output_bytes: most bytes of outputs, as far as the caller knows.
        threshold_bytes: least size that is worth it.
    """
    used = 0

    def place(sizes: Mapping[str, int]) -> dict[str, Placed]:
        nonlocal used
        placed = {}
        for name, size in sizes.items():
            if size >= threshold_bytes:
                placed[name] = Placed(used, size)
                used += -(-size // ALIGNED_BYTES) * ALIGNED_BYTES
        return placed

    inputs = place({tensor.name: len(tensor.data) for tensor in request.inputs})
    asked = {output.name for output in request.outputs if not output.parameters.get("classification")}
    if unasked := set(output_bytes) - {output.name for output in request.outputs}:
        raise BadInput("names an output that is not in outputs", field=f"output_bytes.{min(unasked)}")
    return inputs, place({name: size for name, size in output_bytes.items() if name in asked}), used


def to_bytes(
    request: InferRequest,
    lease: Lease | None = None,
    inputs: Mapping[str, Placed] | None = None,
    outputs: Mapping[str, Placed] | None = None,
) -> bytes:
    """The request as a serialized ModelInferRequest; what was placed is written into the lease's region."""
    inputs, outputs = inputs or {}, outputs or {}
    message = pb.ModelInferRequest(model_name=request.model_name, model_version=request.model_version, id=request.id)
    write_parameters(message.parameters, request.parameters)
    contents = []
    for tensor in request.inputs:
        entry = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        placed = inputs.get(tensor.name)
        if placed is None or lease is None:
            contents.append(tensor.data)
        else:
            lease.write(placed.offset, tensor.data)
            write_parameters(entry.parameters, _where(lease, placed))
    for output in request.outputs:
        wanted = message.outputs.add(name=output.name)
        write_parameters(wanted.parameters, output.parameters)
        if output.name in outputs and lease is not None:
            write_parameters(wanted.parameters, _where(lease, outputs[output.name]))
    return join_contents(message.SerializeToString(), REQUEST_CONTENTS, contents)


def _where(lease: Lease, placed: Placed) -> Parameters:
    return {
        "shared_memory_region": lease.segment.name,
        "shared_memory_byte_size": placed.size,
        "shared_memory_offset": placed.offset,
    }


def _array(name: str, given: Given) -> Array:
    """The array as it is, or made of what was given; raises :class:`BadInput` for what has no datatype."""
    try:
        array = np.asarray(given)
        if array is not given and array.dtype.kind in "SU":
            array = np.asarray(given, object)  # numpy's own strings lose zeros at their ends
    except Exception as error:  # numpy calls code of the object, which may raise anything
        raise BadInput(f"is no array: {foreign_text(error)}", field=name, fix=_FIX) from error
    if array is not given and array.dtype == object and not all(isinstance(each, str | bytes) for each in array.flat):
        raise BadInput(f"numpy makes no tensor of {shown(given)}", field=name, fix=_FIX)
    return array


def _tensor(name: str, given: Given) -> Tensor:
    array = _array(name, given)
    try:
        datatype = datatype_of(array)
    except BadInput as error:
        raise BadInput(error.problem, field=name, fix=_FIX) from error
    if datatype == "BYTES":
        return Tensor.from_array(name, array)
    raw = np.ascontiguousarray(array, DATATYPES[datatype].numpy)
    return Tensor(name, datatype, array.shape, raw.reshape(-1).view(np.uint8).data)


def _requested(outputs: Outputs) -> tuple[RequestedOutput, ...]:
    if isinstance(outputs, Mapping):
        return tuple(
            RequestedOutput(name, {"classification": classes} if classes else {}) for name, classes in outputs.items()
        )
    return tuple(RequestedOutput(name) for name in outputs)
