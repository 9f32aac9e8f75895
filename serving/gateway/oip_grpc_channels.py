"""Channels: the gateway's gRPC connections to replicas; shared by all calls that are passed on.

The one invariant: no channel outlives its replica by more than one look at the mesh and the calls under way on it, and
idle ones hold no connection.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import grpc

from serving.backends.ray.oip_server import grpc_options
from serving.gateway.oip_mesh import OipMesh
from serving.settings import LimitSettings

_OPTIONS: Final = (
    # A replica that stops waits for its connections, so none is kept without need.
    ("grpc.client_idle_timeout_ms", 1000),
    # The default waits up to two minutes before it looks again at a replica that was away for a moment.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class _Open:
    """A channel, and how many calls use it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.users = 0


class Channels:
    """Opened as needed.

    Args:
        mesh: knows which replicas live.
        limits: bounds of messages.
    """

    def __init__(self, mesh: OipMesh, limits: LimitSettings) -> None:
        self._mesh = mesh
        self._options = [*grpc_options(limits.infer_bytes), *_OPTIONS]
        self._open: dict[str, _Open] = {}

    @asynccontextmanager
    async def to(self, address: str) -> AsyncIterator[grpc.aio.Channel]:
        """The channel to a replica, for one call or stream."""
        if address not in self._open:
            await self._close_those_of_the_gone()
        used = self._open.get(address)
        if used is None:
            used = self._open[address] = _Open(grpc.aio.insecure_channel(address, options=self._options))
        used.users += 1
        try:
            yield used.channel
        finally:
            used.users -= 1

    async def close(self) -> None:
        """Close all of them."""
        while self._open:
            await self._open.popitem()[1].channel.close()

    async def _close_those_of_the_gone(self) -> None:
        """A replica that has left the rotation may still be answering, so a channel in use stays."""
        replicas = await self._mesh.edge.replicas()
        living = {each.grpc for replica in replicas for each in replica.endpoints}
        gone = [address for address, each in self._open.items() if address not in living and not each.users]
        closing = [self._open.pop(address) for address in gone]
        for each in closing:
            await each.channel.close()
