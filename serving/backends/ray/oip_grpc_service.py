"""The gRPC side of a Ray replica: inference.GRPCInferenceService over an OipPlane; run by OipServer.

The one invariant: only calls that are served are registered, so every other one answers UNIMPLEMENTED by itself.
"""

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NoReturn, Protocol

import grpc
import structlog
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from tritonclient.grpc import service_pb2 as pb

from serving.backends.ray.oip_grpc_stream import InferStream
from serving.backends.ray.oip_plane import OipPlane
from serving.errors import NotFound, QueueFull, ReelmeshError
from serving.protocol.oip_errors import error_text
from serving.protocol.oip_grpc import SERVICE, from_message, to_message
from serving.protocol.oip_metadata import server_metadata

log = structlog.get_logger()


class Context(Protocol):
    """The part of grpc.aio's context that calls use."""

    async def abort(
        self, code: grpc.StatusCode, details: str, trailing_metadata: Sequence[tuple[str, str]] = ()
    ) -> NoReturn:
        """End the call with a status."""

    def time_remaining(self) -> float | None:
        """Seconds until the client gives up; None where it does not say."""


Call = Callable[[Any, Context], Awaitable[Message]]


def oip_service(plane: OipPlane) -> grpc.GenericRpcHandler:
    """The handlers to add to a grpc.aio server."""
    calls = _Calls(plane)
    unary = {
        "ModelInfer": (pb.ModelInferRequest, calls.infer),
        "ServerLive": (pb.ServerLiveRequest, calls.live),
        "ServerReady": (pb.ServerReadyRequest, calls.ready),
        "ServerMetadata": (pb.ServerMetadataRequest, calls.server),
        "ModelReady": (pb.ModelReadyRequest, calls.model_ready),
        "ModelMetadata": (pb.ModelMetadataRequest, calls.metadata),
        "ModelConfig": (pb.ModelConfigRequest, calls.config),
        "ModelStatistics": (pb.ModelStatisticsRequest, calls.statistics),
    }
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(_guarded(call), request.FromString, response_serializer=_serialize)
        for name, (request, call) in unary.items()
    }
    handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
        calls.stream, pb.ModelInferRequest.FromString, response_serializer=_serialize
    )
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


class _Calls:
    def __init__(self, plane: OipPlane) -> None:
        self._plane = plane

    async def infer(self, message: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        self._plane.find(message.model_name, message.model_version)
        request = from_message(message, self._plane.regions)
        left_s = context.time_remaining()
        deadline_unix_s = None if left_s is None else time.time() + left_s
        return to_message(await self._plane.infer(request, "grpc", deadline_unix_s))

    async def stream(
        self, messages: AsyncIterator[pb.ModelInferRequest], _: Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        async with contextlib.aclosing(InferStream(self._plane).answer(messages)) as responses:
            async for response in responses:
                yield response

    async def live(self, _message: Message, _: Context) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ready(self, _message: Message, _: Context) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=not self._plane.draining)

    async def server(self, _message: Message, _: Context) -> pb.ServerMetadataResponse:
        return ParseDict(server_metadata(), pb.ServerMetadataResponse())

    async def model_ready(self, message: pb.ModelReadyRequest, _: Context) -> pb.ModelReadyResponse:
        try:
            self._plane.find(message.name, message.version)
        except NotFound:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=not self._plane.draining)

    async def metadata(self, message: pb.ModelMetadataRequest, _: Context) -> pb.ModelMetadataResponse:
        return ParseDict(self._plane.metadata(message.name, message.version), pb.ModelMetadataResponse())

    async def config(self, message: pb.ModelConfigRequest, _: Context) -> pb.ModelConfigResponse:
        return pb.ModelConfigResponse(config=self._plane.find(message.name, message.version)[0])

    async def statistics(self, message: pb.ModelStatisticsRequest, _: Context) -> pb.ModelStatisticsResponse:
        return ParseDict(self._plane.statistics(message.name, message.version), pb.ModelStatisticsResponse())


def _guarded(call: Call) -> Call:
    async def guarded(message: Message, context: Context) -> Message:
        try:
            return await call(message, context)
        except ReelmeshError as error:
            # gRPC clients that retry wait for as long as this says.
            wait = (
                (("grpc-retry-pushback-ms", str(error.retry_after_s * 1000)),) if isinstance(error, QueueFull) else ()
            )
            await context.abort(grpc.StatusCode[error.grpc_status], error_text(error), wait)
        except Exception as error:
            log.exception("oip_grpc_failed")
            await context.abort(grpc.StatusCode.INTERNAL, f"internal error: {type(error).__name__}")

    return guarded


def _pushback(error: ReelmeshError) -> tuple[tuple[str, str], ...]:
    """What gRPC clients that retry read: how long to wait."""
    if not isinstance(error, QueueFull):
        return ()
    return (("grpc-retry-pushback-ms", str(error.retry_after_s * 1000)),)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
