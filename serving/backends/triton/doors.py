"""Doors: where one tritonserver is reached, by sockets and by ports; opened and closed by TritonProcess.

The one invariant: its ports lead to it from before it listens until it is closed, whether or not it listens itself.
"""

import asyncio
from dataclasses import dataclass

from serving.backends.address import LOOPBACK
from serving.backends.relay import Relay
from serving.backends.triton.command import Ports, Sockets, free_ports
from serving.backends.triton.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Doors:
    """Made by :meth:`open`.

    Args:
        host: address of the ports.
        ports: where everybody finds it.
        sockets: where it listens, when nobody beyond this machine must reach it; its ports are relays then.
        relays: from its ports to its sockets.
    """

    host: str
    ports: Ports
    sockets: Sockets | None = None
    relays: tuple[Relay, ...] = ()

    @classmethod
    async def open(cls, workspace: Workspace, generation: str, host: str) -> "Doors":
        """Find free ports; on the loopback, sockets too, which cost half as much, and relays on the ports."""
        folder = await asyncio.to_thread(workspace.sockets, generation) if host == LOOPBACK else None
        if folder is None:
            return cls(host, free_ports())
        sockets = Sockets.within(folder)
        relays = tuple(Relay(host, path) for path in sockets)
        return cls(host, Ports(*[await relay.start() for relay in relays]), sockets, relays)

    async def answer(self) -> bool:
        """Whether the server listens."""
        if self.sockets is None:
            dials = [asyncio.open_connection(self.host, port) for port in (self.ports.http, self.ports.grpc)]
        else:
            dials = [asyncio.open_unix_connection(path) for path in self.sockets]
        found = await asyncio.gather(*dials, return_exceptions=True)
        for dialled in found:
            if isinstance(dialled, tuple):
                dialled[1].close()
        return all(isinstance(dialled, tuple) for dialled in found)

    async def close(self) -> None:
        """Close the relays."""
        for relay in self.relays:
            await relay.stop()
