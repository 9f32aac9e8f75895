"""OipServer: HTTP and gRPC servers of the Open Inference Protocol inside a Ray replica, on ports of their own.

The one invariant: after stop() returns no request of this server is running and both ports are closed.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Final

import grpc
import structlog
import uvicorn

from serving.backends.ray.oip_grpc_service import oip_service
from serving.backends.ray.oip_http_app import oip_app
from serving.backends.ray.oip_plane import OipPlane
from serving.errors import Unavailable
from serving.settings import LimitSettings

log = structlog.get_logger()

DRAIN_S: Final = 10
"""Seconds that requests in flight get to finish on stop."""
# Longer than HAProxy keeps an idle connection, so that it never sends into one that is being closed.
_KEEP_ALIVE_S: Final = 90
_MESSAGE_MARGIN_BYTES: Final = 1 << 20
_START_S: Final = 10.0
_BACKLOG: Final = 1024


class OipServer:
    """Serves a plane's models by the Open Inference Protocol.

    Args:
        plane: answers; its models stay its owner's to add, remove and close.
        limits: ``infer_bytes`` bounds HTTP bodies and gRPC messages alike.
        host: address to bind; clients reach it through the edge.
    """

    def __init__(self, plane: OipPlane, limits: LimitSettings, host: str = "127.0.0.1") -> None:
        self._plane = plane
        self._limits = limits
        self._host = host
        self._http: _Uvicorn | None = None
        self._serving: asyncio.Task[None] | None = None
        self._grpc: grpc.aio.Server | None = None

    async def start(self) -> tuple[int, int]:
        """Listen on two free ports and return them: HTTP, gRPC."""
        listener = listen(self._host)
        self._http = _Uvicorn(
            uvicorn.Config(
                oip_app(self._plane, self._limits.infer_bytes),
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=DRAIN_S,
            )
        )
        self._serving = asyncio.create_task(self._http.serve(sockets=[listener]))
        await _until_started(self._http, self._serving)
        self._grpc = grpc.aio.server(options=grpc_options(self._limits.infer_bytes))
        self._grpc.add_generic_rpc_handlers((oip_service(self._plane),))
        grpc_port = self._grpc.add_insecure_port(f"{self._host}:0")
        await self._grpc.start()
        http_port = int(listener.getsockname()[1])
        log.info("oip_listening", http=http_port, grpc=grpc_port, models=list(self._plane.names()))
        return http_port, grpc_port

    async def stop(self) -> None:
        """Refuse new requests, give those in flight :data:`DRAIN_S` seconds, close both ports."""
        self._plane.draining = True
        if self._grpc is not None:
            await self._grpc.stop(DRAIN_S)
        if self._http is not None and self._serving is not None:
            self._http.should_exit = True
            await self._serving


class _Uvicorn(uvicorn.Server):
    """uvicorn that leaves the process's signals to Ray."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _until_started(server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
    async with asyncio.timeout(_START_S):
        while not server.started:
            if serving.done():
                raise Unavailable("the replica's HTTP server did not start")
            await asyncio.sleep(0.005)


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


def grpc_options(body_bytes: int) -> list[tuple[str, int]]:
    """Options of a gRPC server or channel inside the mesh, which takes messages of ``body_bytes``.

    Idle connections stay alive, and no channel goes through a proxy that the environment names.
    """
    most = body_bytes + _MESSAGE_MARGIN_BYTES
    return [
        ("grpc.max_receive_message_length", most),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", 16 << 10),
        ("grpc.so_reuseport", 0),
        ("grpc.enable_http_proxy", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
