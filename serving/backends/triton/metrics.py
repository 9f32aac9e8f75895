"""MetricsServer: one address with Triton's metrics and the replica's own; held by TritonReplica, scraped by the edge.

The one invariant: it answers whatever is asked within its bounds, and says nothing but metrics.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from serving.backends.address import LOOPBACK

log = structlog.get_logger()

HEAD_BYTES: Final = 8192
TIMEOUT_S: Final = 5.0


class MetricsServer:
    """Answers every HTTP GET with a Prometheus exposition.

    Args:
        text: makes the exposition.
        host: address to listen on.
    """

    def __init__(self, text: Callable[[], Awaitable[str]], host: str = LOOPBACK) -> None:
        self._text = text
        self._host = host
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Listen on a free port; the address to scrape."""
        self._server = await asyncio.start_server(self._answer, self._host, 0, limit=HEAD_BYTES)
        return f"http://{self._host}:{self._server.sockets[0].getsockname()[1]}/metrics"

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET "):
                    body = (await self._text()).encode()
                    writer.write(_head("200 OK", len(body)) + body)
                else:
                    writer.write(_head("405 Method Not Allowed", 0))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.debug("metrics_not_answered", error=str(error))
        finally:
            writer.close()


def _head(status: str, length: int) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        "Content-Type: text/plain; version=0.0.4; charset=utf-8",
        f"Content-Length: {length}",
        "Connection: close",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
