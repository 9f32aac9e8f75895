"""grpc.health.v1 and reflection on the gateway's gRPC server: what Kubernetes, grpcurl and gRPC clients ask.

The one invariant: a status follows from the replicas' last heartbeats at the moment it is asked for.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from serving.errors import Unavailable
from serving.gateway.oip_mesh import OipMesh
from serving.protocol.oip_grpc import SERVICE

WATCH_S: Final = 0.5
"""How often a watched status is looked at."""
_HEALTH: Final = "grpc.health.v1.Health"
_WHOLE: Final = ("", SERVICE)
_STATUS: Final = pb.HealthCheckResponse


def add_health(server: grpc.aio.Server, mesh: OipMesh) -> None:
    """Add both services to the server, before it starts."""
    health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(mesh), server)
    reflection.enable_server_reflection((SERVICE, _HEALTH, reflection.SERVICE_NAME), server)


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # grpc has no types
    """Answers for the mesh (no name, or the inference service's) and for each model by its name.

    The library's own servicer must be told of changes; here there is somebody to ask instead.

    Args:
        mesh: knows what is ready.
    """

    def __init__(self, mesh: OipMesh) -> None:
        self._mesh = mesh

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802  the service's own name
        """The status now; NOT_FOUND for what is neither service nor model."""
        status = (await self._statuses()).get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"unknown service: {request.service[:256]!r}")
        return pb.HealthCheckResponse(status=status)

    async def Watch(self, request: Any, _context: Any) -> AsyncIterator[Any]:  # noqa: ANN401, N802
        """The status now and whenever it changes."""
        last = None
        while True:
            status = (await self._statuses()).get(request.service, _STATUS.SERVICE_UNKNOWN)
            if status != last:
                yield pb.HealthCheckResponse(status=status)
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
