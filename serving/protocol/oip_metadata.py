"""Documents about servers and models: metadata and configuration as JSON; used by OIP servers, gateway.

The one invariant: gRPC answers are parsed from these same documents, so both wires always say the same.
"""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from tritonclient.grpc import model_config_pb2 as pb

from serving.protocol.oip import TensorSpec
from serving.protocol.oip_config import input_specs, output_specs

SERVER_NAME: Final = "reelmesh"
EXTENSIONS: Final = (
    "binary_tensor_data",
    "classification",
    "generate",
    "model_configuration",
    "parameters",
    "schedule_policy",
    "sequence",
    "statistics",
)
"""The protocol's extensions that a Ray replica serves."""

_WIDE: Final = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)


@cache
def server_version() -> str:
    """The version of the installed project."""
    try:
        return version(SERVER_NAME)
    except PackageNotFoundError:
        return "0"


def server_metadata(extensions: Sequence[str] = EXTENSIONS) -> dict[str, Any]:
    """The answer to ``GET /v2``."""
    return {"name": SERVER_NAME, "version": server_version(), "extensions": list(extensions)}


def model_metadata(config: pb.ModelConfig, versions: Sequence[str]) -> dict[str, Any]:
    """The answer to ``GET /v2/models/<name>``."""
    return {
        "name": config.name,
        "versions": list(versions),
        "platform": config.platform or config.backend,
        "inputs": [_tensor(spec) for spec in input_specs(config)],
        "outputs": [_tensor(spec) for spec in output_specs(config)],
    }


def config_document(config: pb.ModelConfig) -> dict[str, Any]:
    """The answer to ``GET /v2/models/<name>/config``: every field, 64-bit integers as numbers, as in Triton."""
    document = MessageToDict(config, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    _widen(document, config)
    return document


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _widen(document: dict[str, Any], message: Message) -> None:
    """Turn the strings that protobuf's JSON uses for 64-bit integers into numbers, in place."""
    for descriptor in message.DESCRIPTOR.fields:
        value = document.get(descriptor.name)
        if value is None or (descriptor.message_type and descriptor.message_type.GetOptions().map_entry):
            continue
        if descriptor.cpp_type in _WIDE:
            document[descriptor.name] = [int(item) for item in value] if isinstance(value, list) else int(value)
        elif descriptor.message_type:
            inner = getattr(message, descriptor.name)
            if isinstance(value, list):
                for entry, part in zip(value, inner, strict=True):
                    _widen(entry, part)
            else:
                _widen(value, inner)
