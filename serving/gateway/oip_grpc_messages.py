"""Between the control plane's documents and Triton's gRPC messages; used by the gateway's gRPC calls.

The one invariant: pure functions; what a message says is checked in the same places as what HTTP says.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError, Message
from pydantic import JsonValue
from tritonclient.grpc import service_pb2 as pb

from serving.errors import BadInput

Document = Mapping[str, Any]

_FILE: Final = "file:"


def parsed(kind: type[Message], data: bytes) -> Any:  # noqa: ANN401  messages have no types
    """A message; raises :class:`BadInput` for bytes that are none."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise BadInput(f"the message is no {kind.DESCRIPTOR.name}", field="message") from error


def from_document(kind: type[Message], document: Document) -> bytes:
    """A message of a document with the same fields; fields that the message lacks are left out."""
    return written(ParseDict(dict(document), kind(), ignore_unknown_fields=True))


def written(message: Message) -> bytes:
    """The message's bytes."""
    data: bytes = message.SerializeToString()
    return data


def repository_parameters(parameters: Mapping[str, pb.ModelRepositoryParameter]) -> dict[str, JsonValue]:
    """Parameters of a load or an unload as HTTP has them: a file's bytes in base64."""
    found: dict[str, JsonValue] = {}
    for name, parameter in parameters.items():
        chosen = parameter.WhichOneof("parameter_choice")
        value: Any = getattr(parameter, chosen) if chosen else None
        if isinstance(value, bytes):
            value = base64.b64encode(value).decode("ascii")
        elif name.startswith(_FILE):
            raise BadInput("must be given as bytes_param", field=f"parameters.{name[:64]}")
        found[name] = value
    return found


def trace_changes_of(message: pb.TraceSettingRequest) -> dict[str, JsonValue]:
    """Trace settings as HTTP has them: none clears, levels are a list, anything else is one string."""
    changes: dict[str, JsonValue] = {}
    for name, setting in message.settings.items():
        values = list(setting.value)
        if len(values) > 1 and name != "trace_level":
            raise BadInput(f"expects one value, not {len(values)}", field=name)
        levels: JsonValue = [str(value) for value in values]
        changes[name] = None if not values else levels if name == "trace_level" else values[0]
    return changes


def trace_response(document: Document) -> bytes:
    """The settings in force."""
    settings = {name: {"value": value if isinstance(value, list) else [str(value)]} for name, value in document.items()}
    return from_document(pb.TraceSettingResponse, {"settings": settings})


def log_changes_of(message: pb.LogSettingsRequest) -> dict[str, JsonValue]:
    """Log settings as HTTP has them."""
    found = {name: (setting, setting.WhichOneof("parameter_choice")) for name, setting in message.settings.items()}
    return {name: getattr(setting, chosen) if chosen else None for name, (setting, chosen) in found.items()}


def log_response(document: Document) -> bytes:
    """The settings in force."""
    message = pb.LogSettingsResponse()
    for name, value in document.items():
        if isinstance(value, bool):
            message.settings[name].bool_param = value
        elif isinstance(value, int):
            message.settings[name].uint32_param = value
        else:
            message.settings[name].string_param = str(value)
    return written(message)


def cuda_body(message: pb.CudaSharedMemoryRegisterRequest) -> dict[str, JsonValue]:
    """What registers a CUDA region, as HTTP has it."""
    handle = base64.b64encode(message.raw_handle).decode("ascii")
    return {"raw_handle": {"b64": handle}, "device_id": message.device_id, "byte_size": message.byte_size}


def regions_response(kind: type[Message], regions: Sequence[Document]) -> bytes:
    """Regions by name."""
    return from_document(kind, {"regions": {str(region["name"]): dict(region) for region in regions}})
