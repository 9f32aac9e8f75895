"""The OIP's control plane over gRPC, for the whole mesh; added to the gateway's grpc.aio server.

The one invariant: a message for one model is passed to a replica as it came and its answer back as it is; inference
comes here only when the edge could not read the model's name, or knows no replica of it.
"""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

import grpc
import structlog
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import DecodeError, Message
from tritonclient.grpc import service_pb2 as pb

from serving.backends.ray.oip_server import grpc_options
from serving.errors import BadInput, NotFound, ReelmeshError, Unavailable, foreign_text
from serving.gateway.oip_mesh import Endpoints, OipMesh, merge_statistics
from serving.protocol.oip_errors import error_text
from serving.protocol.oip_grpc import SERVICE
from serving.settings import LimitSettings

log = structlog.get_logger()

_LOOK_S: Final = 10.0
_IDLE_MS: Final = 1000
_ANSWER_S: Final = 3600.0


class _Forwarded(NamedTuple):
    """A call about one model: its request, and how long a replica may take when the client sets no deadline."""

    request: type[Message]
    patience_s: float


_FORWARDED: Final[Mapping[str, _Forwarded]] = {
    "ModelInfer": _Forwarded(pb.ModelInferRequest, _ANSWER_S),
    "ModelMetadata": _Forwarded(pb.ModelMetadataRequest, _LOOK_S),
    "ModelConfig": _Forwarded(pb.ModelConfigRequest, _LOOK_S),
    "ModelReady": _Forwarded(pb.ModelReadyRequest, _LOOK_S),
    "ModelStatistics": _Forwarded(pb.ModelStatisticsRequest, _LOOK_S),
}


def oip_handler(endpoints: Endpoints, limits: LimitSettings, expected: Collection[str] = ()) -> grpc.GenericRpcHandler:
    """Handlers for ``server.add_generic_rpc_handlers``; make the server with ``grpc_options(limits.infer_bytes)``.

    Args:
        endpoints: asks the edge where replicas listen.
        limits: bounds of messages.
        expected: models without whose replicas the mesh is not ready.
    """
    calls = _Calls(OipMesh(endpoints, expected), limits)
    methods = {
        "ServerLive": calls.live,
        "ServerReady": calls.ready,
        "ServerMetadata": calls.server,
        "RepositoryIndex": calls.index,
        **{name: calls.forwarder(name) for name in _FORWARDED},
    }
    return grpc.method_handlers_generic_handler(
        SERVICE, {name: grpc.unary_unary_rpc_method_handler(_guarded(call)) for name, call in methods.items()}
    )


class _Calls:
    """Bytes in, bytes out: most messages are only passed on."""

    def __init__(self, mesh: OipMesh, limits: LimitSettings) -> None:
        self._mesh = mesh
        # A replica that stops waits for its connections, so none is kept without need.
        self._options = [*grpc_options(limits.infer_bytes), ("grpc.client_idle_timeout_ms", _IDLE_MS)]
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def live(self, _data: bytes, _context: Any) -> bytes:  # noqa: ANN401  grpc has no types
        return _bytes(pb.ServerLiveResponse(live=True))

    async def ready(self, _data: bytes, _context: Any) -> bytes:  # noqa: ANN401
        return _bytes(pb.ServerReadyResponse(ready=not await self._mesh.missing()))

    async def server(self, _data: bytes, _context: Any) -> bytes:  # noqa: ANN401
        return _bytes(ParseDict(self._mesh.metadata(), pb.ServerMetadataResponse()))

    async def index(self, data: bytes, _context: Any) -> bytes:  # noqa: ANN401
        message = _parse(pb.RepositoryIndexRequest, data)
        return _bytes(ParseDict({"models": await self._mesh.index(message.ready)}, pb.RepositoryIndexResponse()))

    def forwarder(self, name: str) -> Any:  # noqa: ANN401
        """The call that passes a message of this name to a replica."""
        kind = _FORWARDED[name]

        async def forward(data: bytes, context: Any) -> bytes:  # noqa: ANN401
            message = _parse(kind.request, data)
            model = message.model_name if name == "ModelInfer" else message.name
            version = message.model_version if name == "ModelInfer" else message.version
            if name == "ModelStatistics" and not model:
                return await self._all_statistics()
            try:
                replica = await self._mesh.find(model, version)
            except (NotFound, Unavailable):
                if name != "ModelReady":
                    raise
                return _bytes(pb.ModelReadyResponse(ready=False))
            return await self._send(name, replica.grpc, data, context.time_remaining() or kind.patience_s)

        return forward

    async def _send(self, name: str, address: str, data: bytes, patience_s: float) -> bytes:
        call = (await self._channel(address)).unary_unary(f"/{SERVICE}/{name}")
        answer: bytes = await call(data, timeout=patience_s)
        return answer

    async def _all_statistics(self) -> bytes:
        addresses = sorted({endpoint.grpc for endpoint in await self._mesh.replicas()})
        answers = await asyncio.gather(
            *(self._send("ModelStatistics", each, b"", _LOOK_S) for each in addresses), return_exceptions=True
        )
        documents = []
        for address, answer in zip(addresses, answers, strict=True):
            if isinstance(answer, bytes):
                documents.append(_document(answer))
            else:
                log.warning("oip_statistics_failed", replica=address, error=foreign_text(answer))
        return _bytes(ParseDict(merge_statistics(documents), pb.ModelStatisticsResponse()))

    async def _channel(self, address: str) -> grpc.aio.Channel:
        if address not in self._channels:
            living = {endpoint.grpc for endpoint in await self._mesh.replicas()}
            for gone in self._channels.keys() - living:
                await self._channels.pop(gone).close()
            self._channels[address] = grpc.aio.insecure_channel(address, options=self._options)
        return self._channels[address]


def _parse(kind: type[Message], data: bytes) -> Any:  # noqa: ANN401  messages have no types
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise BadInput(f"the message is no {kind.DESCRIPTOR.name}", field="message") from error


def _bytes(message: Message) -> bytes:
    return message.SerializeToString()


def _document(answer: bytes) -> dict[str, Any]:
    message = pb.ModelStatisticsResponse.FromString(answer)
    document: dict[str, Any] = _numbers(MessageToDict(message, preserving_proto_field_name=True))
    return document


def _numbers(value: Any) -> Any:  # noqa: ANN401  JSON
    """Protobuf's JSON writes 64-bit integers as strings; statistics hold no other digits but versions and names."""
    if isinstance(value, dict):
        return {k: v if k in ("name", "version") else _numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return int(value) if isinstance(value, str) and value.isdigit() else value


def _guarded(call: Any) -> Any:  # noqa: ANN401
    async def guarded(data: bytes, context: Any) -> bytes:  # noqa: ANN401
        try:
            answer: bytes = await call(data, context)
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details() or "")
        except ReelmeshError as error:
            await context.abort(grpc.StatusCode[error.grpc_status], error_text(error))
        except Exception:
            log.exception("oip_grpc_failed")
            await context.abort(grpc.StatusCode.INTERNAL, "the gateway failed; its log says more")
        return answer

    return guarded
