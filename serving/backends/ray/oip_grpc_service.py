"""The calls of inference.GRPCInferenceService over an OipPlane; served by grpc_handler.

The one invariant: only calls that are served are in the tables, so every other one answers UNIMPLEMENTED by itself.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from tritonclient.grpc import service_pb2 as pb

from serving.backends.ray.oip_grpc_stream import InferStream
from serving.backends.ray.oip_plane import OipPlane
from serving.errors import NotFound
from serving.protocol.oip_grpc import from_message, to_message
from serving.protocol.oip_metadata import server_metadata

Call = Callable[[Any, float | None], Awaitable[Message]]
"""Takes the request and how many seconds the client waits."""
StreamCall = Callable[[AsyncIterator[Any]], AsyncGenerator[Any, None]]


class OipCalls:
    """Answers calls.

    Args:
        plane: decides.
    """

    def __init__(self, plane: OipPlane) -> None:
        self._plane = plane

    def unary(self) -> dict[str, tuple[type[Message], Call]]:
        """Calls with one request and one response."""
        return {
            "ModelInfer": (pb.ModelInferRequest, self._infer),
            "ServerLive": (pb.ServerLiveRequest, self._live),
            "ServerReady": (pb.ServerReadyRequest, self._ready),
            "ServerMetadata": (pb.ServerMetadataRequest, self._server),
            "ModelReady": (pb.ModelReadyRequest, self._model_ready),
            "ModelMetadata": (pb.ModelMetadataRequest, self._metadata),
            "ModelConfig": (pb.ModelConfigRequest, self._config),
            "ModelStatistics": (pb.ModelStatisticsRequest, self._statistics),
        }

    def streams(self) -> dict[str, tuple[type[Message], StreamCall]]:
        """Calls with any number of both."""
        return {"ModelStreamInfer": (pb.ModelInferRequest, self._stream)}

    async def _infer(self, message: pb.ModelInferRequest, left_s: float | None) -> pb.ModelInferResponse:
        self._plane.find(message.model_name, message.model_version)
        request = from_message(message, self._plane.regions)
        deadline_unix_s = None if left_s is None else time.time() + left_s
        return to_message(await self._plane.infer(request, "grpc", deadline_unix_s))

    def _stream(
        self, messages: AsyncIterator[pb.ModelInferRequest]
    ) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
        return InferStream(self._plane).answer(messages)

    async def _live(self, _message: Message, _: float | None) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def _ready(self, _message: Message, _: float | None) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=not self._plane.draining)

    async def _server(self, _message: Message, _: float | None) -> pb.ServerMetadataResponse:
        return ParseDict(server_metadata(), pb.ServerMetadataResponse())

    async def _model_ready(self, message: pb.ModelReadyRequest, _: float | None) -> pb.ModelReadyResponse:
        try:
            self._plane.find(message.name, message.version)
        except NotFound:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=not self._plane.draining)

    async def _metadata(self, message: pb.ModelMetadataRequest, _: float | None) -> pb.ModelMetadataResponse:
        return ParseDict(self._plane.metadata(message.name, message.version), pb.ModelMetadataResponse())

    async def _config(self, message: pb.ModelConfigRequest, _: float | None) -> pb.ModelConfigResponse:
        return pb.ModelConfigResponse(config=self._plane.find(message.name, message.version)[0])

    async def _statistics(self, message: pb.ModelStatisticsRequest, _: float | None) -> pb.ModelStatisticsResponse:
        return ParseDict(self._plane.statistics(message.name, message.version), pb.ModelStatisticsResponse())
