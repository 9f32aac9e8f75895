"""What the HTTP calls of a Ray replica that carry tensors share: bodies in, answers out, clients that go away.

The one invariant: nothing is read beyond the limit, and whatever goes wrong is answered as ``{"error": ...}``.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import structlog
from pydantic_core import to_json
from starlette.types import Receive, Send

from serving.errors import BadInput, QueueFull, ReelmeshError, TooLarge
from serving.protocol.oip_compression import decompress
from serving.protocol.oip_errors import error_body

log = structlog.get_logger()

Headers = Mapping[bytes, bytes]

JSON: Final = (b"content-type", b"application/json")
_WATCH_AFTER_S: Final = 0.02
"""Requests that are answered sooner are not worth a task that watches their connection."""


class ClientGone(Exception):
    """The client closed its connection."""


def error_headers(error: ReelmeshError) -> dict[str, str]:
    """Headers that belong to an error."""
    if isinstance(error, TooLarge):
        # Else the server would go on reading, and dropping, whatever the client still sends.
        return {"connection": "close"}
    return {"retry-after": str(error.retry_after_s)} if isinstance(error, QueueFull) else {}


async def read_body(receive: Receive, headers: Headers, limit_bytes: int) -> bytes:
    """The body, decompressed.

    Raises:
        TooLarge: before the memory is spent.
        BadInput: it is not what its headers say.
        ClientGone: it ends too early.
    """
    declared = headers.get(b"content-length", b"0")
    if not declared.isdigit():
        raise BadInput("must be a number", field="Content-Length")
    too_large = TooLarge(f"is over {limit_bytes} bytes", field="request body", fix="raise limits.infer_bytes")
    if int(declared[:20]) > limit_bytes:
        raise too_large
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit_bytes:
            raise too_large
        pieces.append(piece)
        if not message.get("more_body"):
            break
    body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    encoding = headers.get(b"content-encoding")
    if not encoding:
        return body
    # Whatever its length: a small one may grow to any size.
    return await asyncio.to_thread(decompress, body, encoding.decode("latin-1"), limit_bytes)


async def answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    """Send a whole response."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def answer_error(send: Send, error: ReelmeshError) -> None:
    """Send an error as a whole response."""
    extra = [(name.encode(), value.encode()) for name, value in error_headers(error).items()]
    await answer(send, error.http_status, to_json(error_body(error)), JSON, *extra)


@contextlib.asynccontextmanager
async def until_gone(receive: Receive) -> AsyncIterator[None]:
    """Cancel the body of the block when the client closes its connection, and raise :class:`ClientGone` then."""
    watch = _Watch(receive)
    try:
        yield
    except asyncio.CancelledError:
        if not watch.gone:
            raise
        watch.serving.uncancel()
        raise ClientGone from None
    finally:
        watch.end()


class _Watch:
    """Cancels the task that made it when its client goes away."""

    def __init__(self, receive: Receive) -> None:
        self.gone = False
        self.serving: asyncio.Task[Any] = _this_task()
        self._receive = receive
        self._watching: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, self._begin)

    def _begin(self) -> None:
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            continue
        self.gone = True
        self.serving.cancel()

    def end(self) -> None:
        """Watch no longer."""
        self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("outside of a task")
    return task
