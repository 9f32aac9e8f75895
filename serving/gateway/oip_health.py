"""grpc.health.v1 and reflection on the gateway's gRPC server: what Kubernetes, grpcurl and gRPC clients ask.

The one invariant: a status follows from the replicas' last heartbeats at the moment it is asked for.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from serving.errors import Unavailable
from serving.gateway.oip_mesh import OipMesh
from serving.protocol.oip_grpc import SERVICE

WATCH_S: Final = 0.5
"""How often a watched status is looked at."""
MOST_WATCHES: Final = 256
"""Watches held at a time. They need no key and never end, and each takes one of the calls that the server holds."""
_REFLECTION: Final = "grpc.reflection.v1.ServerReflection"
_HEALTH: Final = "grpc.health.v1.Health"
_WHOLE: Final = ("", SERVICE)
_STATUS: Final = pb.HealthCheckResponse


def add_health(server: grpc.aio.Server, mesh: OipMesh) -> None:
    """Add both services to the server, before it starts."""
    health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(mesh), server)
    names = (SERVICE, _HEALTH, _REFLECTION, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    # The messages of v1 are those of v1alpha under another name, which is all that grpcio-reflection has.
    info = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer(names).ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handler = grpc.method_handlers_generic_handler(_REFLECTION, {"ServerReflectionInfo": info})
    server.add_generic_rpc_handlers((handler,))


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # grpc has no types
    """Answers for the mesh (no name, or the inference service's) and for each model by its name.

    The library's own servicer must be told of changes; here there is somebody to ask instead.

    Args:
        mesh: knows what is ready.
    """

    def __init__(self, mesh: OipMesh) -> None:
        self._mesh = mesh
        self._watches = 0

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802  the service's own name
        """The status now; NOT_FOUND for what is neither service nor model."""
        status = (await self._statuses()).get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"unknown service: {request.service[:256]!r}")
        return pb.HealthCheckResponse(status=status)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401, N802
        """The status now and whenever it changes; RESOURCE_EXHAUSTED where too many watch."""
        if self._watches >= MOST_WATCHES:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MOST_WATCHES} watch already: ask by Check")
        self._watches += 1
        try:
            async for status in self._changes(request.service):
                yield pb.HealthCheckResponse(status=status)
        finally:
            self._watches -= 1

    async def _changes(self, service: str) -> AsyncIterator[int]:
        last = None
        while True:
            status = (await self._statuses()).get(service, _STATUS.SERVICE_UNKNOWN)
            if status != last:
                yield status
            last = status
            await asyncio.sleep(WATCH_S)

    async def _statuses(self) -> dict[str, int]:
        try:
            missing, index = await self._mesh.missing(), await self._mesh.index()
        except Unavailable:  # the edge does not answer
            return dict.fromkeys(_WHOLE, _STATUS.NOT_SERVING)
        models: dict[str, int] = {}
        for entry in index:
            ready = entry.get("state") == "READY" or models.get(entry["name"]) == _STATUS.SERVING
            models[entry["name"]] = _STATUS.SERVING if ready else _STATUS.NOT_SERVING
        return models | dict.fromkeys(_WHOLE, _STATUS.NOT_SERVING if missing else _STATUS.SERVING)
