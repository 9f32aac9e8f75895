"""The calls of inference.GRPCInferenceService over an OipPlane; served by grpc_handler.

The one invariant: only calls that are served are in the tables, so every other one answers UNIMPLEMENTED by itself.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from tritonclient.grpc import service_pb2 as pb

from serving.backends.ray.in_place import answers_small, is_small
from serving.backends.ray.oip_grpc_stream import GrpcRequests, RequestStream
from serving.backends.ray.oip_plane import OipPlane
from serving.errors import NotFound
from serving.protocol.licences import Use
from serving.protocol.oip_grpc import to_bytes
from serving.protocol.oip_metadata import server_metadata

Kind = type[Message] | None
"""Of a call's requests; None where the call parses them itself, since they may be large."""
Told = Callable[[], Use]
"""Reads from a call's metadata what it is for."""
Call = Callable[[Any, float | None, Told], Awaitable[Message | bytes]]
"""Takes the request and how many seconds the client waits; what it gives may be serialized already."""
StreamCall = Callable[[AsyncIterator[Any], Told], AsyncGenerator[Any, None]]


class OipCalls:
    """Answers calls.

    Args:
        plane: decides.
        body_bytes: what a request may have beside its raw contents.
    """

    def __init__(self, plane: OipPlane, body_bytes: int) -> None:
        self._plane = plane
        self._requests = GrpcRequests(plane, body_bytes)

    def unary(self) -> dict[str, tuple[Kind, Call]]:
        """Calls with one request and one response."""
        return {
            "ModelInfer": (None, self._infer),
            "ServerLive": (pb.ServerLiveRequest, self._live),
            "ServerReady": (pb.ServerReadyRequest, self._ready),
            "ServerMetadata": (pb.ServerMetadataRequest, self._server),
            "ModelReady": (pb.ModelReadyRequest, self._model_ready),
            "ModelMetadata": (pb.ModelMetadataRequest, self._metadata),
            "ModelConfig": (pb.ModelConfigRequest, self._config),
            "ModelStatistics": (pb.ModelStatisticsRequest, self._statistics),
        }

    def streams(self) -> dict[str, tuple[Kind, StreamCall]]:
        """Calls with any number of both."""
        return {"ModelStreamInfer": (None, self._stream)}

    async def _infer(self, raw: bytes, left_s: float | None, told: Told) -> bytes:
        requests = self._requests
        deadline_unix_s = None if left_s is None else time.time() + left_s
        request = requests.decode(raw) if is_small(raw) else await asyncio.to_thread(requests.decode, raw)
        if self._plane.refuses(request.model_name):  # metadata cost, and no other model asks
            request = replace(request, use=told())
        response = await self._plane.infer(request, "grpc", deadline_unix_s)
        return to_bytes(response) if answers_small(response) else await asyncio.to_thread(to_bytes, response)

    def _stream(self, raws: AsyncIterator[bytes], told: Told) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
        return RequestStream(self._plane, self._requests, told()).answer(raws)

    async def _live(self, _message: Message, *_: object) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def _ready(self, _message: Message, *_: object) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=not self._plane.draining)

    async def _server(self, _message: Message, *_: object) -> pb.ServerMetadataResponse:
        return ParseDict(server_metadata(), pb.ServerMetadataResponse())

    async def _model_ready(self, message: pb.ModelReadyRequest, *_: object) -> pb.ModelReadyResponse:
        try:
            self._plane.find(message.name, message.version)
        except NotFound:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=not self._plane.draining)

    async def _metadata(self, message: pb.ModelMetadataRequest, *_: object) -> pb.ModelMetadataResponse:
        return ParseDict(self._plane.metadata(message.name, message.version), pb.ModelMetadataResponse())

    async def _config(self, message: pb.ModelConfigRequest, *_: object) -> pb.ModelConfigResponse:
        return pb.ModelConfigResponse(config=self._plane.find(message.name, message.version)[0])

    async def _statistics(self, message: pb.ModelStatisticsRequest, *_: object) -> pb.ModelStatisticsResponse:
        return ParseDict(self._plane.statistics(message.name, message.version), pb.ModelStatisticsResponse())
