"""HttpServer: uvicorn inside a Ray replica, on a free port of its own; used by the gateway's deployment.

The one invariant: the process's signals stay with Ray, and after stop() the port is closed.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from serving.backends.ray.oip_server import listen
from serving.errors import Unavailable

DRAIN_S: Final = 5
"""How long requests in flight may take to finish on stop."""
# Longer than HAProxy keeps an idle connection, so that it never sends into one that is being closed.
_KEEP_ALIVE_S: Final = 90
_START_S: Final = 10.0


class HttpServer:
    """Serves one application.

    Args:
        app: what it serves.
        host: address to bind.
        port: 0 picks a free one.
    """

    def __init__(self, app: ASGIApp, host: str = "127.0.0.1", port: int = 0) -> None:
        self._listener = listen(host, port)
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=DRAIN_S,
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
                    raise Unavailable("the gateway's HTTP server did not start")
                await asyncio.sleep(0.005)

    def check(self) -> None:
        """Raise :class:`Unavailable` once it has ended."""
        if self._serving is None or self._serving.done():
            raise Unavailable("the gateway's HTTP server has ended")

    async def stop(self) -> None:
        """Refuse new requests, let those in flight finish, close the port."""
        if self._serving is not None:
            self._server.should_exit = True
            await self._serving


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
