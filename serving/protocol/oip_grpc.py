"""The OIP over gRPC: Triton's published messages to requests and back; used by the gRPC servers.

The one invariant: pure functions; raw contents are passed on without a copy of our own, and every message a
client can form is either converted or refused with BadInput naming the tensor.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

import numpy as np
from google.protobuf.message import DecodeError, Message
from tritonclient.grpc import service_pb2 as pb

from serving.errors import BadInput, EngineFailed, TooLarge
from serving.protocol.oip import (
    DATATYPES,
    MAX_NAME_CHARS,
    InferRequest,
    InferResponse,
    Parameter,
    Parameters,
    Raw,
    RequestedOutput,
    Tensor,
    check_shape,
)
from serving.protocol.oip_config import RequestCheck
from serving.protocol.oip_http import MAX_ID_CHARS, MAX_TENSORS
from serving.protocol.oip_inputs import Inputs
from serving.protocol.oip_parameters import check_parameters, check_request_parameters
from serving.protocol.oip_wire import REQUEST_CONTENTS, RESPONSE_CONTENTS, join_contents, split_contents
from serving.protocol.shared_memory import REGION, Regions, in_region

if TYPE_CHECKING:
    import grpc

SERVICE: Final = "inference.GRPCInferenceService"
STATUS_IN_STREAMS: Final = (("triton_grpc_error", "true"),)
"""Metadata that ends a stream which fails with a status, where it would be a text alone."""
_TYPED: Final[Mapping[str, str]] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Which typed field holds a datatype; FP16 and BF16 have none and must be sent raw."""
_INT64_END: Final = 2**63
_PART: Final = 1 << 16


class Context(Protocol):
    """The part of grpc.aio's context that handlers use; grpc itself has no types."""

    async def abort(
        self, code: "grpc.StatusCode", details: str, trailing_metadata: Sequence[tuple[str, str]] = ()
    ) -> NoReturn:
        """End the call with a status."""

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]] | None:
        """What the client sent beside the request; names in lower case."""

    def time_remaining(self) -> float | None:
        """Seconds until the client gives up; None where it does not say."""


def text_metadata(context: Context) -> dict[str, str]:
    """A call's metadata that is text."""
    return {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}


def parsed(kind: type[Message], raw: bytes) -> Any:  # noqa: ANN401  a message of that kind
    """The message in ``raw``; raises :class:`BadInput` where there is none."""
    try:
        return kind.FromString(raw)
    except DecodeError as error:
        raise BadInput(f"is not a {kind.DESCRIPTOR.name}", field="message") from error


def split_message(raw: bytes, rest_bytes: int) -> tuple[pb.ModelInferRequest, Sequence[Raw]]:
    """A large request without its raw contents, and each of those as a view of ``raw``.

    Raises:
        BadInput: this is no request.
        TooLarge: the rest of it is over ``rest_bytes``: typed contents take many times their bytes in memory.
    """
    rest, contents = split_contents(raw, REQUEST_CONTENTS)
    if len(rest) > rest_bytes:
        raise TooLarge(
            f"has more than {rest_bytes} bytes beside its raw contents",
            field="message",
            fix="send tensors as raw_input_contents, or raise limits.body_bytes",
        )
    return parsed(pb.ModelInferRequest, rest), contents


def from_message(
    message: pb.ModelInferRequest,
    regions: Regions | None = None,
    check: RequestCheck | None = None,
    raw: Sequence[Raw] | None = None,
) -> InferRequest:
    """Convert a request.

    Args:
        message: as received.
        regions: where inputs in shared memory lie; None refuses them.
        check: of the model, asked before elements are counted or regions read.
        raw: the raw contents of a message that was split; else they are the message's own.

    Raises:
        BadInput: naming the tensor.
        NotFound: no such region of shared memory.
    """
    if len(message.inputs) > MAX_TENSORS or len(message.outputs) > MAX_TENSORS:
        raise BadInput(f"has more than {MAX_TENSORS} tensors", field="inputs")
    if len(message.id) > MAX_ID_CHARS:
        raise BadInput(f"has more than {MAX_ID_CHARS} characters", field="id")
    raw = message.raw_input_contents if raw is None else raw
    # Inputs in shared memory have no entry among the raw contents.
    sent = sum(REGION not in tensor.parameters for tensor in message.inputs)
    if raw and len(raw) != sent:
        raise BadInput(f"expected {sent} entries for {sent} inputs, got {len(raw)}", field="raw_input_contents")
    contents = iter(raw) if raw else None
    inputs = Inputs(check, regions)
    for tensor in message.inputs:
        _add_input(inputs, tensor, contents, message.model_name)
    return InferRequest(
        message.model_name,
        message.model_version,
        message.id,
        check_request_parameters(parameter_values(message.parameters), "parameters"),
        tuple(inputs.tensors),
        tuple(_output(output) for output in message.outputs),
    )


def to_message(response: InferResponse) -> pb.ModelInferResponse:
    """Convert a response; all outputs travel raw, as Triton sends them."""
    message = _without_contents(response)
    message.raw_output_contents.extend(map(bytes, _contents(response)))
    return message


def to_bytes(response: InferResponse) -> bytes:
    """The same, serialized, with one copy of each output instead of three."""
    return join_contents(_without_contents(response).SerializeToString(), RESPONSE_CONTENTS, _contents(response))


def _contents(response: InferResponse) -> list[Raw]:
    # Triton has an empty entry for an output in shared memory, and clients count entries.
    return [b"" if in_region(tensor.parameters) else tensor.data for tensor in response.outputs]


def _without_contents(response: InferResponse) -> pb.ModelInferResponse:
    message = pb.ModelInferResponse(
        model_name=response.model_name, model_version=response.model_version, id=response.id
    )
    write_parameters(message.parameters, response.parameters)
    for tensor in response.outputs:
        output = message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        write_parameters(output.parameters, tensor.parameters)
    return message


def to_request_message(request: InferRequest) -> pb.ModelInferRequest:
    """Convert a request to send it on, with raw contents."""
    message = pb.ModelInferRequest(model_name=request.model_name, model_version=request.model_version, id=request.id)
    write_parameters(message.parameters, request.parameters)
    for tensor in request.inputs:
        entry = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        write_parameters(entry.parameters, tensor.parameters)
        message.raw_input_contents.append(bytes(tensor.data))
    for output in request.outputs:
        write_parameters(message.outputs.add(name=output.name).parameters, output.parameters)
    return message


def from_response_message(message: pb.ModelInferResponse) -> InferResponse:
    """Convert a replica's response, whose outputs are raw; raises :class:`EngineFailed` when they are not."""
    if len(message.raw_output_contents) != len(message.outputs):
        raise EngineFailed(f"model '{message.model_name}' answered without raw outputs")
    outputs = tuple(
        Tensor(output.name, output.datatype, tuple(output.shape), data)
        for output, data in zip(message.outputs, message.raw_output_contents, strict=True)
    )
    return InferResponse(message.model_name, message.model_version, message.id, {}, outputs)


def read_parameters(raw: Mapping[str, pb.InferParameter], place: str) -> dict[str, Parameter]:
    """A message's parameters; raises :class:`BadInput` naming ``place``."""
    return check_parameters(parameter_values(raw), place)


def parameter_values(raw: Mapping[str, pb.InferParameter]) -> dict[str, object]:
    """What a message's parameters hold, None where nothing was chosen."""
    if not raw:
        return {}
    chosen = {name: (parameter, parameter.WhichOneof("parameter_choice")) for name, parameter in raw.items()}
    return {name: getattr(parameter, choice) if choice else None for name, (parameter, choice) in chosen.items()}


def write_parameters(target: Mapping[str, pb.InferParameter], parameters: Parameters) -> None:
    """Put parameters into a message's map."""
    for name, value in parameters.items():
        if isinstance(value, bool):
            target[name].bool_param = value
        elif isinstance(value, int):
            setattr(target[name], "int64_param" if value < _INT64_END else "uint64_param", value)
        elif isinstance(value, float):
            target[name].double_param = value
        else:
            target[name].string_param = value


def _add_input(
    inputs: Inputs, tensor: pb.ModelInferRequest.InferInputTensor, contents: Iterator[Raw] | None, model: str
) -> None:
    if not 1 <= len(tensor.name) <= MAX_NAME_CHARS:
        raise BadInput(f"must have 1 to {MAX_NAME_CHARS} characters", field="inputs.name")
    parameters = read_parameters(tensor.parameters, tensor.name)
    shape = tuple(tensor.shape)
    if in_region(parameters):
        if tensor.HasField("contents"):
            raise BadInput(f"there is both data and a shared memory region for '{tensor.name}'", field=tensor.name)
        inputs.add_shared(tensor.name, tensor.datatype, shape, parameters)
    elif contents is None:
        inputs.add(tensor.name, tensor.datatype, shape, _typed(tensor, shape), parameters)
    elif tensor.HasField("contents"):
        raise BadInput(
            f"contents field must not be specified when using raw_input_contents for '{tensor.name}' "
            f"for model '{model}'",
            field=tensor.name,
        )
    else:
        inputs.add(tensor.name, tensor.datatype, shape, next(contents), parameters)


def _typed(tensor: pb.ModelInferRequest.InferInputTensor, shape: tuple[int, ...]) -> bytes:
    """Typed contents in raw form."""
    elements = check_shape(tensor.name, tensor.datatype, shape)
    field = _TYPED.get(tensor.datatype)
    if field is None:
        raise BadInput(f"{tensor.datatype} of '{tensor.name}' must be sent in raw_input_contents", field=tensor.name)
    if stray := [other.name for other, _ in tensor.contents.ListFields() if other.name != field]:
        raise BadInput(f"'{tensor.name}' is {tensor.datatype} and must use {field}, not {stray[0]}", field=tensor.name)
    values = getattr(tensor.contents, field)
    if len(values) != elements:
        raise BadInput(f"'{tensor.name}' has {len(values)} elements, but its shape holds {elements}", field=tensor.name)
    if tensor.datatype == "BYTES":
        return bytes(Tensor.from_elements(tensor.name, values).data)
    try:
        # In pieces: as objects, numbers take many times their bytes, and one call on all holds up every other thread.
        parts = (values[start : start + _PART] for start in range(0, elements, _PART))
        return b"".join(np.array(part, DATATYPES[tensor.datatype].numpy).tobytes() for part in parts)
    except OverflowError:
        raise BadInput(
            f"'{tensor.name}' has a number outside the range of {tensor.datatype}", field=tensor.name
        ) from None


def _output(output: pb.ModelInferRequest.InferRequestedOutputTensor) -> RequestedOutput:
    parameters = read_parameters(output.parameters, output.name)
    return RequestedOutput(output.name, parameters)
