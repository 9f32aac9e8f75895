"""Relay: a TCP port that leads to a Unix socket; held by a TritonProcess that listens on sockets.

The one invariant: it passes bytes on unread, in both directions, and holds at most two pieces of each connection.

The edge goes to the socket itself, which costs HAProxy and Triton half of what a connection of the loopback costs.
The relay is for everybody else who looks for a port: the gateway with what it looks at first, and the tools of a test.
"""

import asyncio
import contextlib
from typing import Final

_PIECE_BYTES: Final = 256 << 10
_BACKLOG: Final = 256


class Relay:
    """Listens on a free port once started.

    Args:
        host: address to listen on.
        path: the Unix socket, which need not be there yet: until it is, connections are closed at once.
    """

    def __init__(self, host: str, path: str) -> None:
        self._host = host
        self._path = path
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(
            self._take, self._host, 0, limit=_PIECE_BYTES, backlog=_BACKLOG, start_serving=True
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening and cut what is open."""
        if self._server is None:
            return
        self._server.close()
        for task in tuple(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        self._server = None

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._pass(reader, writer), name="relay")
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            inner_reader, inner_writer = await asyncio.open_unix_connection(self._path, limit=_PIECE_BYTES)
            with contextlib.closing(inner_writer):
                async with asyncio.TaskGroup() as both:
                    there = both.create_task(_copy(reader, inner_writer))
                    back = both.create_task(_copy(inner_reader, writer))
                    # Triton answers until it closes; a client that closed first reads no more answers.
                    await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
                    there.cancel()
                    back.cancel()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(_PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
