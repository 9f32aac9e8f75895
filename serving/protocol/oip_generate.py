"""The generate extension: plain JSON keys to tensors and parameters, and outputs back to plain JSON; used by servers.

The one invariant: pure functions; a key that names an input becomes that input, every other key a request parameter.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Final

import numpy as np
from pydantic import JsonValue
from pydantic_core import to_json

from serving.errors import BadInput
from serving.protocol.oip import DATATYPES, InferRequest, InferResponse, Tensor, TensorSpec
from serving.protocol.oip_http import MAX_ID_CHARS
from serving.protocol.oip_json import parse_object
from serving.protocol.oip_parameters import check_request_parameters

ONE_RESPONSE: Final = (
    "generate expects model to produce exactly 1 response, use generate stream for model that may generate various "
    "number of responses"
)
_INTEGERS: Final = (int,)
_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "BYTES": (str,),
    "BOOL": (bool,),
    "FP16": (int, float),
    "BF16": (int, float),
    "FP32": (int, float),
    "FP64": (int, float),
}


def generate_request(
    body: bytes | memoryview, specs: Sequence[TensorSpec], model_name: str, model_version: str = ""
) -> InferRequest:
    """Read one request.

    Args:
        body: a JSON object; the entries of its ``parameters`` object count like those beside it.
        specs: the model's inputs.
        model_name: from the path.
        model_version: from the path, or empty.

    Raises:
        BadInput: naming the key.
    """
    document = parse_object(body, "request body")
    nested = document.pop("parameters", None)
    if nested is not None and not isinstance(nested, dict):
        raise BadInput("must be an object", field="parameters")
    by_name = {spec.name: spec for spec in specs}
    request_id = "" if "id" in by_name else document.pop("id", "")
    if not isinstance(request_id, str) or len(request_id) > MAX_ID_CHARS:
        raise BadInput(f"must be a string of at most {MAX_ID_CHARS} characters", field="id")
    given = {**(nested or {}), **document}
    inputs = tuple(_tensor(by_name[key], value) for key, value in given.items() if key in by_name)
    for key, value in given.items():
        if key not in by_name and not isinstance(value, bool | int | float | str):
            raise BadInput(
                f"parameter '{key[:256]}' has invalid type. It should be either 'int', 'bool', or 'string'",
                field=key[:256],
            )
    parameters = check_request_parameters(
        {key: value for key, value in given.items() if key not in by_name}, "parameters"
    )
    return InferRequest(model_name, model_version, request_id, parameters, inputs)


def generate_document(response: InferResponse) -> dict[str, Any]:
    """One response as plain JSON: an output of one element is a value, any other one an array."""
    document: dict[str, Any] = {"id": response.id} if response.id else {}
    document |= {"model_name": response.model_name, "model_version": response.model_version}
    document |= response.parameters
    return document | {tensor.name: _value(tensor) for tensor in response.outputs}


def event(document: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + to_json(document, inf_nan_mode="constants") + b"\n\n"


def _tensor(spec: TensorSpec, value: JsonValue) -> Tensor:
    elements = value if isinstance(value, list) else [value]
    if not set(map(type, elements)) <= set(_KINDS.get(spec.datatype, _INTEGERS)):
        raise BadInput(f"must be {spec.datatype}, or an array of it", field=spec.name)
    shape = _shape(spec, len(elements))
    if spec.datatype == "BYTES":
        return Tensor.from_elements(spec.name, [str(element).encode("utf-8", "replace") for element in elements], shape)
    try:
        array = np.array(elements, DATATYPES[spec.datatype].numpy)
    except OverflowError:
        raise BadInput(f"has a number outside the range of {spec.datatype}", field=spec.name) from None
    return Tensor(spec.name, spec.datatype, shape, array.tobytes())


def _shape(spec: TensorSpec, elements: int) -> tuple[int, ...]:
    """The model's shape with its last free size filled so that it holds the elements; other free sizes are 1."""
    free = [index for index, size in enumerate(spec.shape) if size < 0]
    fixed = prod(size for size in spec.shape if size >= 0)
    if elements != fixed and (not free or not fixed or elements % fixed):
        raise BadInput(f"has {elements} elements, which do not fit the shape {list(spec.shape)}", field=spec.name)
    return tuple(
        size if size >= 0 else elements // fixed if index == free[-1] else 1 for index, size in enumerate(spec.shape)
    )


def _value(tensor: Tensor) -> Any:  # noqa: ANN401  whatever JSON holds
    if tensor.datatype == "BYTES":
        values: list[Any] = [element.decode("utf-8", "replace") for element in tensor.elements()]
    elif tensor.datatype == "BF16":
        values = tensor.array().astype(np.float32).reshape(-1).tolist()
    else:
        values = tensor.array().reshape(-1).tolist()
    return values[0] if len(values) == 1 else values
