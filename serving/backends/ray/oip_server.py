"""OipServer: HTTP and gRPC servers of the Open Inference Protocol inside a Ray replica, on ports of their own.

The one invariant: after stop() returns no request of this server is running and both ports are closed.
"""

import asyncio
from typing import Final

import grpc
import structlog

from serving.backends.http_server import HttpServer, listen
from serving.backends.ray.oip_grpc_handler import grpc_handler
from serving.backends.ray.oip_grpc_service import OipCalls
from serving.backends.ray.oip_http_app import oip_app
from serving.backends.ray.oip_plane import OipPlane
from serving.protocol.oip_grpc import SERVICE
from serving.settings import LimitSettings

__all__ = ["DRAIN_S", "OipServer", "grpc_options", "listen"]

log = structlog.get_logger()

DRAIN_S: Final = 10
"""Seconds that requests in flight get to finish on stop, where nothing else is said."""
_MESSAGE_MARGIN_BYTES: Final = 1 << 20


class OipServer:
    """Serves a plane's models by the Open Inference Protocol.

    Args:
        plane: answers; its models stay its owner's to add, remove and close.
        limits: ``infer_bytes`` bounds HTTP bodies and gRPC messages alike, ``body_bytes`` all but their raw tensors.
        host: address to bind; clients reach it through the edge.
        drain_s: how long requests in flight may take to finish on stop, in whole seconds.
    """

    def __init__(self, plane: OipPlane, limits: LimitSettings, host: str = "127.0.0.1", drain_s: int = DRAIN_S) -> None:
        self._plane = plane
        self._limits = limits
        self._host = host
        self._drain_s = drain_s
        self._http: HttpServer | None = None
        self._grpc: grpc.aio.Server | None = None

    async def start(self) -> tuple[int, int]:
        """Listen on two free ports and return them: HTTP, gRPC."""
        most = self._limits.infer_bytes
        app = oip_app(self._plane, self._limits)
        self._http = HttpServer(app, self._host, drain_s=self._drain_s, name="the replica's HTTP server")
        await self._http.start()
        options = [*grpc_options(most), ("grpc.max_concurrent_streams", self._limits.grpc_streams)]
        self._grpc = grpc.aio.server(options=options)
        calls = OipCalls(self._plane, self._limits.body_bytes)
        self._grpc.add_generic_rpc_handlers((grpc_handler(SERVICE, calls.unary(), calls.streams()),))
        grpc_port = self._grpc.add_insecure_port(f"{self._host}:0")
        await self._grpc.start()
        log.info("oip_listening", http=self._http.port, grpc=grpc_port, models=list(self._plane.names()))
        return self._http.port, grpc_port

    def check(self) -> None:
        """Raise :class:`Unavailable` once it has ended by itself."""
        if self._http is not None:
            self._http.check()

    async def stop(self) -> None:
        """Refuse new requests, give those in flight ``drain_s`` seconds, close both ports."""
        self._plane.draining = True
        # One after the other would let requests run for twice that.
        async with asyncio.TaskGroup() as stopping:
            if self._grpc is not None:
                stopping.create_task(self._grpc.stop(self._drain_s))
            if self._http is not None:
                stopping.create_task(self._http.stop())


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
