"""What a bearer key allows in a gRPC call; asked by the gateway's gRPC calls, once for each message of a stream.

The one invariant: the edge has checked the key and the kind of call, but sees no model in most messages; so whatever
names a model is checked here, before anything is done.
"""

from collections.abc import Mapping
from typing import Final

from google.protobuf.message import Message
from tritonclient.grpc import service_pb2 as pb

from serving.errors import Forbidden, shown
from serving.gateway.oip_grpc_messages import parsed
from serving.protocol.keys import Grant, call_of, may

_MODEL_IN: Final[Mapping[str, tuple[type[Message], str]]] = {
    "ModelInfer": (pb.ModelInferRequest, "model_name"),
    "ModelReady": (pb.ModelReadyRequest, "name"),
    "ModelMetadata": (pb.ModelMetadataRequest, "name"),
    "ModelConfig": (pb.ModelConfigRequest, "name"),
    "ModelStatistics": (pb.ModelStatisticsRequest, "name"),
    "RepositoryModelLoad": (pb.RepositoryModelLoadRequest, "model_name"),
    "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest, "model_name"),
    "TraceSetting": (pb.TraceSettingRequest, "model_name"),
}
"""The field that names the model, by method; empty means all models."""


def check_call(grant: Grant | None, method: str, data: bytes) -> None:
    """Raise :class:`Forbidden` unless the key allows the method for the model that the message names."""
    if grant is None or method not in _MODEL_IN:
        check_may(grant, method)
        return
    kind, field = _MODEL_IN[method]
    check_may(grant, method, getattr(parsed(kind, data), field))


def check_may(grant: Grant | None, method: str, model: str | None = None) -> None:
    """Raise :class:`Forbidden` unless the key allows the method, for the model where it is about one.

    Args:
        grant: what the key allows.
        method: of the OIP's service.
        model: its name, "" for all models at once, None where the call is about none.
    """
    if may(grant, call_of(method), model):
        return
    about = "every model at once" if model == "" else f"the model {shown(model)}"
    raise Forbidden(f"the key does not allow {method}" + ("" if model is None else f" for {about}"))
