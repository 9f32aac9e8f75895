"""HttpServer: uvicorn inside a replica, on a port of its own; used by replicas, control ports and the gateway.

The one invariant: the process's signals stay with its owner, and after stop() the port is closed.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from serving.errors import Unavailable

DRAIN_S: Final = 5
"""How long requests in flight may take to finish on stop, where nothing else is said."""
# Longer than HAProxy keeps an idle connection, so that it never sends into one that is being closed.
_KEEP_ALIVE_S: Final = 90
_START_S: Final = 10.0
_BACKLOG: Final = 1024


class HttpServer:
    """Serves one application.

    Args:
        app: what it serves.
        host: address to bind.
        port: 0 picks a free one.
        drain_s: how long requests in flight may take to finish on stop, in whole seconds.
        name: what its errors call it.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        drain_s: int = DRAIN_S,
        name: str = "the HTTP server",
    ) -> None:
        self._name = name
        self._listener = listen(host, port)
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=drain_s,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    async def start(self) -> None:
        """Serve; returns when requests are taken."""
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listener]), name="http-server")
        async with asyncio.timeout(_START_S):
            while not self._server.started:
                if self._serving.done():
                    raise Unavailable(f"{self._name} did not start")
                await asyncio.sleep(0.005)

    def check(self) -> None:
        """Raise :class:`Unavailable` once it has ended."""
        if self._serving is None or self._serving.done():
            raise Unavailable(f"{self._name} has ended")

    async def stop(self) -> None:
        """Refuse new requests, let those in flight finish, close the port."""
        if self._serving is None:
            self._listener.close()
        else:
            self._server.should_exit = True
            await self._serving


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int = 0) -> socket.socket:
    """A listening TCP socket for uvicorn; a port 0 picks a free one.

    The protocol must be named: asyncio turns Nagle's algorithm off only where it sees TCP, and a server that writes
    header and body apart would otherwise wait 40 ms for the client's delayed acknowledgement.
    """
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(_BACKLOG)
    return listener
