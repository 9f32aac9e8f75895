"""Builds the module that a python-backend model imports as ``triton_python_backend_utils``; used by tensor_python.

The one invariant: every model gets a module of its own, so that what it knows of itself (its folder, its calls to other
models) is no other's.
"""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

from serving.backends.ray.engines import tensor_python_errors as errors
from serving.backends.ray.engines import tensor_python_types as types
from serving.backends.ray.engines.tensor_config import Array
from serving.backends.ray.engines.tensor_python_complete import ModelConfig
from serving.backends.ray.engines.tensor_python_module import UTILS
from serving.protocol.oip import DATATYPES, Tensor, datatype_of

Document = Mapping[str, Any]

TRITON_STRING_TO_NUMPY: Final[Mapping[str, Any]] = {
    datatype.config: np.object_ if datatype.size_bytes is None else bool if name == "BOOL" else datatype.numpy.type
    for name, datatype in DATATYPES.items()
}
_NUMBERS: Final = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES",
    "BF16",
)  # fmt: skip
"""Datatypes in the order of Triton's numbers for them, from 1."""


def build_utils(model: str, folder: Path, caller: types.Caller | None) -> ModuleType:
    """The module.

    Args:
        model: the model's name.
        folder: its version folder.
        caller: runs the model's requests to others; None where it cannot make any.
    """
    utils = ModuleType(UTILS, "Triton's python backend utilities, inside a Ray replica of the mesh.")
    request = type("InferenceRequest", (types.InferenceRequest,), {"caller": caller})
    functions = (
        get_input_tensor_by_name, get_output_tensor_by_name, get_input_config_by_name, get_output_config_by_name,
        using_decoupled_model_transaction_policy, triton_string_to_numpy, triton_to_numpy_type, numpy_to_triton_type,
        serialize_byte_tensor, deserialize_bytes_tensor,
    )  # fmt: skip
    classes = (
        types.Tensor, types.InferenceResponse, types.InferenceResponseSender, errors.TritonError,
        errors.TritonModelException, ModelConfig,
    )  # fmt: skip
    vars(utils).update({each.__name__: each for each in (*functions, *classes)})
    vars(utils).update(
        InferenceRequest=request,
        Logger=errors.Logger(model),
        get_model_dir=lambda: str(folder),
        TRITON_STRING_TO_NUMPY=dict(TRITON_STRING_TO_NUMPY),
        TRITONSERVER_REQUEST_FLAG_SEQUENCE_START=types.FLAG_START,
        TRITONSERVER_REQUEST_FLAG_SEQUENCE_END=types.FLAG_END,
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=types.FINAL,
        TRITONSERVER_REQUEST_RELEASE_ALL=1,
        TRITONSERVER_REQUEST_RELEASE_RESCHEDULE=2,
        TRITONSERVER_MEMORY_CPU=0,
        TRITONSERVER_MEMORY_CPU_PINNED=1,
        TRITONSERVER_MEMORY_GPU=2,
    )
    return utils


def get_input_tensor_by_name(inference_request: types.InferenceRequest, name: str) -> types.Tensor | None:
    """The input of that name, or None."""
    return next((tensor for tensor in inference_request.inputs() if tensor.name() == name), None)


def get_output_tensor_by_name(inference_response: types.InferenceResponse, name: str) -> types.Tensor | None:
    """The output of that name, or None."""
    return next((tensor for tensor in inference_response.output_tensors() if tensor.name() == name), None)


def get_input_config_by_name(model_config: Document, name: str) -> Document | None:
    """What config.pbtxt says of an input, or None."""
    return next((entry for entry in model_config.get("input", ()) if entry["name"] == name), None)


def get_output_config_by_name(model_config: Document, name: str) -> Document | None:
    """What config.pbtxt says of an output, or None."""
    return next((entry for entry in model_config.get("output", ()) if entry["name"] == name), None)


def using_decoupled_model_transaction_policy(model_config: Document) -> bool:
    """Whether the model answers with any number of responses."""
    return bool(model_config.get("model_transaction_policy", {}).get("decoupled", False))


def triton_string_to_numpy(triton_type_string: str) -> Any:  # noqa: ANN401  numpy's types
    """Type of numpy for ``TYPE_FP32`` and so on."""
    return TRITON_STRING_TO_NUMPY[triton_type_string]


def triton_to_numpy_type(data_type: int) -> Any:  # noqa: ANN401  numpy's types
    """Type of numpy for Triton's number of a datatype, or None."""
    known = 1 <= data_type <= len(_NUMBERS)
    return TRITON_STRING_TO_NUMPY[DATATYPES[_NUMBERS[data_type - 1]].config] if known else None


def numpy_to_triton_type(data_type: Any) -> int:  # noqa: ANN401  numpy's types
    """Triton's number for numpy's type."""
    return _NUMBERS.index(datatype_of(np.empty(0, data_type))) + 1


def serialize_byte_tensor(input_tensor: Array) -> bytes:
    """Strings in the protocol's raw form: each behind its length, 4 bytes, little-endian."""
    return bytes(Tensor.from_array("", input_tensor, "BYTES").data)


def deserialize_bytes_tensor(encoded_tensor: bytes) -> Array:
    """The strings of :func:`serialize_byte_tensor` as a flat array of bytes."""
    found, position = [], 0
    while position < len(encoded_tensor):
        start = position + 4
        position = start + int.from_bytes(encoded_tensor[position:start], "little")
        found.append(bytes(encoded_tensor[start:position]))
    return np.array(found, dtype=object)
