"""Channels: the gateway's gRPC connections to replicas; shared by all calls that are passed on.

The one invariant: no channel outlives its replica by more than one look at the mesh, and idle ones hold no connection.
"""

from typing import Final

import grpc

from serving.backends.ray.oip_server import grpc_options
from serving.gateway.oip_mesh import OipMesh
from serving.settings import LimitSettings

_IDLE_MS: Final = 1000
"""A replica that stops waits for its connections, so none is kept without need."""


class Channels:
    """Opened as needed.

    Args:
        mesh: knows which replicas live.
        limits: bounds of messages.
    """

    def __init__(self, mesh: OipMesh, limits: LimitSettings) -> None:
        self._mesh = mesh
        self._options = [*grpc_options(limits.infer_bytes), ("grpc.client_idle_timeout_ms", _IDLE_MS)]
        self._open: dict[str, grpc.aio.Channel] = {}

    async def to(self, address: str) -> grpc.aio.Channel:
        """The channel to a replica."""
        if address not in self._open:
            replicas = await self._mesh.edge.replicas()
            living = {each.grpc for replica in replicas for each in replica.endpoints} | {address}
            for gone in self._open.keys() - living:
                await self._open.pop(gone).close()
        if address not in self._open:
            self._open[address] = grpc.aio.insecure_channel(address, options=self._options)
        return self._open[address]

    async def close(self) -> None:
        """Close all of them."""
        while self._open:
            await self._open.popitem()[1].close()
