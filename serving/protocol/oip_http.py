"""The OIP over HTTP, JSON with the binary tensor data extension: decode requests, encode responses; used by
servers.

The one invariant: pure functions over a body whose size the server has already bounded; whatever the body
holds, decoding either returns a request whose tensors fit their shapes or raises BadInput naming the place.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any, Final

import numpy as np
from pydantic_core import to_json

from serving.errors import BadInput
from serving.protocol.oip import (
    DATATYPES,
    MAX_DIMS,
    MAX_NAME_CHARS,
    InferRequest,
    InferResponse,
    Raw,
    RequestedOutput,
    Tensor,
    TensorSpec,
    check_shape,
)
from serving.protocol.oip_config import RequestCheck
from serving.protocol.oip_inputs import Inputs
from serving.protocol.oip_json import MAX_DEPTH, parse_object
from serving.protocol.oip_parameters import check_parameters, check_request_parameters, wants_binary
from serving.protocol.shared_memory import Regions, in_region

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
MAX_TENSORS: Final = 1024
MAX_ID_CHARS: Final = 4096
_MAX_LENGTH_DIGITS: Final = 18
_JSON_TYPES: Final[dict[str, set[type]]] = {
    "BOOL": {bool},
    "BYTES": {str},
    "FP32": {int, float},
    "FP64": {int, float},
}
_PART: Final = 1 << 16
_NOT_IN_JSON: Final = ("FP16", "BF16")


def header_length(value: str | None, body_bytes: int) -> int:
    """Length of the JSON part from the header's text; the whole body when there is no header."""
    if value is None:
        return body_bytes
    digits = value.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _MAX_LENGTH_DIGITS):
        raise BadInput(f"must be a number of bytes, not {value[:32]!r}", field=HEADER_LENGTH)
    length = int(digits)
    if length > body_bytes:
        raise BadInput(f"is {length}, past the end of a body of {body_bytes} bytes", field=HEADER_LENGTH)
    return length


def decode_request(
    body: Raw,
    json_bytes: int,
    model_name: str,
    model_version: str = "",
    check: RequestCheck | None = None,
    regions: Regions | None = None,
) -> InferRequest:
    """Decode one inference request.

    Args:
        body: the whole body, decompressed.
        json_bytes: how much of it is JSON, from :func:`header_length`; 0 means a raw request.
        model_name: from the path.
        model_version: from the path, or empty.
        check: of the model, asked before elements are counted or regions read; a raw request needs one.
        regions: where inputs in shared memory lie; None refuses them.

    Raises:
        BadInput: naming the field in the JSON, for example ``inputs[0].shape``.
    """
    view = memoryview(body)
    if json_bytes == 0 and view:
        return InferRequest(model_name, model_version, inputs=(_raw_input(view, check.inputs if check else ()),))
    document = parse_object(view[:json_bytes], "request body")
    binary = view[json_bytes:]
    inputs, offset = Inputs(check, regions), 0
    for index, entry in enumerate(_entries(document, "inputs", required=True)):
        offset += _add_input(inputs, entry, f"inputs[{index}]", binary[offset:])
    if offset != len(binary):
        raise BadInput(f"{len(binary) - offset} bytes of binary data belong to no input", field="binary_data_size")
    outputs = [
        _output(entry, f"outputs[{index}]") for index, entry in enumerate(_entries(document, "outputs", required=False))
    ]
    return InferRequest(
        model_name,
        model_version,
        _text(document, "id", "id", MAX_ID_CHARS, required=False),
        check_request_parameters(document.get("parameters"), "parameters"),
        tuple(inputs.tensors),
        tuple(outputs),
    )


def encode_response(response: InferResponse, request: InferRequest) -> tuple[list[Raw], int | None]:
    """Encode a response as the request wants it.

    Returns:
        The pieces of the body, and the length of the JSON piece for the header (None: all of it is JSON).
    """
    wanted = {output.name: output for output in request.outputs}
    entries: list[bytes] = []
    pieces: list[Raw] = []
    for tensor in response.outputs:
        entry: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.shape,
        }
        parameters, data = dict(tensor.parameters), b""
        if in_region(parameters):
            pass
        elif wants_binary(wanted.get(tensor.name), request.parameters):
            parameters["binary_data_size"] = len(tensor.data)
            pieces.append(tensor.data)
        else:
            data = b',"data":[' + b",".join(_json_data(tensor)) + b"]"
        entry |= {"parameters": parameters} if parameters else {}
        entries.append(to_json(entry)[:-1] + data + b"}")
    document: dict[str, Any] = {"model_name": response.model_name, "model_version": response.model_version}
    document |= {"id": response.id} if response.id else {}
    document |= {"parameters": dict(response.parameters)} if response.parameters else {}
    header = to_json(document, inf_nan_mode="constants")[:-1] + b',"outputs":[' + b",".join(entries) + b"]}"
    return [header, *pieces], len(header) if pieces else None


def _entries(document: dict[str, Any], key: str, *, required: bool) -> list[dict[str, Any]]:
    entries = document.get(key)
    if entries is None and not required:
        return []
    if not isinstance(entries, list):
        raise BadInput("must be an array", field=key)
    if len(entries) > MAX_TENSORS:
        raise BadInput(f"has {len(entries)} entries, more than {MAX_TENSORS}", field=key)
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise BadInput("must be an object", field=f"{key}[{index}]")
    return entries


def _text(entry: dict[str, Any], key: str, place: str, limit: int, *, required: bool = True) -> str:
    value = entry.get(key, None if required else "")
    if not isinstance(value, str):
        raise BadInput("must be a string", field=place)
    if len(value) > limit or (required and not value):
        raise BadInput(f"must have 1 to {limit} characters, not {len(value)}", field=place)
    return value


def _shape(entry: dict[str, Any], place: str) -> tuple[int, ...]:
    shape = entry.get("shape")
    if not isinstance(shape, list) or not set(map(type, shape)) <= {int} or len(shape) > MAX_DIMS:
        raise BadInput(f"must be an array of at most {MAX_DIMS} integers", field=f"{place}.shape")
    return tuple(shape)


def _add_input(inputs: Inputs, entry: dict[str, Any], place: str, binary: memoryview) -> int:
    """Add one input; how many bytes of the binary part are its own."""
    name = _text(entry, "name", f"{place}.name", MAX_NAME_CHARS)
    datatype = _text(entry, "datatype", f"{place}.datatype", MAX_NAME_CHARS)
    shape = _shape(entry, place)
    parameters = check_parameters(entry.get("parameters"), f"{place}.parameters")
    elements = check_shape(name, datatype, shape)
    if in_region(parameters):
        if "data" in entry or "binary_data_size" in parameters:
            raise BadInput("there is both data and a shared memory region", field=name)
        inputs.add_shared(name, datatype, shape, parameters)
        return 0
    size = parameters.pop("binary_data_size", None)
    if size is None:
        data = _raw_data(entry.get("data"), name, datatype, elements, f"{place}.data")
        inputs.add(name, datatype, shape, data, parameters)
        return 0
    size = int(size)
    if "data" in entry:
        raise BadInput("there is both 'data' and binary data", field=f"{place}.data")
    if size > len(binary):
        raise BadInput(
            f"is {size}, but only {len(binary)} bytes are left in the body",
            field=f"{place}.parameters.binary_data_size",
        )
    inputs.add(name, datatype, shape, binary[:size], parameters)
    return size


def _output(entry: dict[str, Any], place: str) -> RequestedOutput:
    name = _text(entry, "name", f"{place}.name", MAX_NAME_CHARS)
    parameters = check_parameters(entry.get("parameters"), f"{place}.parameters")
    return RequestedOutput(name, parameters)


def _raw_data(data: object, name: str, datatype: str, elements: int, place: str) -> bytes:
    """JSON data, flat or nested, in raw form."""
    if datatype in _NOT_IN_JSON:
        raise BadInput(
            f"sending {datatype} data via JSON is not supported. Please use the binary data format for input '{name}'",
            field=place,
        )
    if not isinstance(data, list):
        raise BadInput("must be an array", field=place)
    flat = _flatten(data)
    if len(flat) != elements:
        raise BadInput(f"has {len(flat)} elements, but the shape holds {elements}", field=place)
    pieces = []
    for part in _parts(flat):
        if not set(map(type, part)) <= _JSON_TYPES.get(datatype, {int}):
            raise BadInput(f"has an element that is not {datatype}", field=place)
        if datatype == "BYTES":
            elements_of_part = [element.encode("utf-8", "surrogatepass") for element in part]
            pieces.append(bytes(Tensor.from_elements(name, elements_of_part).data))
            continue
        try:
            pieces.append(np.array(part, dtype=DATATYPES[datatype].numpy).tobytes())
        except OverflowError:
            raise BadInput(f"has a number outside the range of {datatype}", field=place) from None
    return b"".join(pieces)


def _parts(elements: Any) -> Iterator[Any]:  # noqa: ANN401  whatever can be sliced
    """Pieces of a sequence: one call on all of it would hold up every other thread for as long as it takes."""
    for start in range(0, len(elements), _PART):
        yield elements[start : start + _PART]


def _flatten(data: list[Any]) -> list[Any]:
    """Elements of nested arrays in order; the depth was bounded by the parser."""
    for _ in range(MAX_DEPTH):
        if list not in map(type, data):
            break
        data = list(chain.from_iterable(item if isinstance(item, list) else (item,) for item in data))
    return data


def _json_data(tensor: Tensor) -> Iterator[bytes]:
    """The elements as JSON, each piece one or more of them with commas between."""
    if tensor.datatype in _NOT_IN_JSON:
        raise BadInput(
            f"sending {tensor.datatype} data via JSON is not supported. "
            f"Please use the binary data format for output '{tensor.name}'",
            field=tensor.name,
        )
    if tensor.datatype != "BYTES":
        for part in _parts(tensor.array().reshape(-1)):
            yield to_json(part.tolist(), inf_nan_mode="constants")[1:-1]
        return
    try:
        for part in _parts(tensor.elements()):
            yield to_json([element.decode() for element in part])[1:-1]
    except UnicodeDecodeError as error:
        raise BadInput(
            f"output '{tensor.name}' holds bytes that are not UTF-8",
            field=tensor.name,
            fix="ask for it with the parameter binary_data true",
        ) from error


def _raw_input(view: memoryview, specs: tuple[TensorSpec, ...]) -> Tensor:
    """The one input of a raw request: the whole body, its one free dimension worked out from its length."""
    if len(specs) != 1:
        raise BadInput(f"a raw request needs a model with one input, this one has {len(specs)}", field=HEADER_LENGTH)
    spec = specs[0]
    free = [index for index, size in enumerate(spec.shape) if size < 0]
    if spec.datatype == "BYTES":
        shape = tuple(1 if size < 0 else size for size in spec.shape)
        return Tensor(spec.name, spec.datatype, shape, len(view).to_bytes(4, "little") + bytes(view))
    size = DATATYPES[spec.datatype].size_bytes or 1
    shape = tuple(1 if index in free[:-1] else extent for index, extent in enumerate(spec.shape))
    if free:
        fixed = check_shape(spec.name, spec.datatype, [extent for extent in shape if extent >= 0]) or 1
        shape = tuple(len(view) // (size * fixed) if extent < 0 else extent for extent in shape)
    return Tensor(spec.name, spec.datatype, shape, view)
