"""Bodies in and documents out of the gateway's OIP routes.

The one invariant: a body is never read past its bound, and every refusal has the protocol's shape.
"""

import asyncio
from typing import Final

from fastapi import Request, Response
from pydantic import JsonValue
from pydantic_core import to_json

from serving.errors import QueueFull, ReelmeshError, TooLarge
from serving.gateway.bodies import bounded_stream
from serving.gateway.byte_budget import Held
from serving.protocol.oip_errors import error_body
from serving.protocol.oip_json import check_depth, parse_object

RETRY_AFTER_S: Final = 1
"""Where an error that may pass does not know when."""
MAX_VALUES: Final = 1 << 18
"""Values in the JSON of a large control call, as its separators tell: a load has some hundred, and what its files'
texts hold."""
_FIELD: Final = "request body"
_SEPARATORS: Final = (b",", b"[", b"{")
IN_PLACE_BYTES: Final = 256 << 10
"""A larger body is looked at in a thread, so that other requests need not wait."""


async def read_body(request: Request, limit_bytes: int, held: Held | None = None) -> bytes:
    """The whole body; raises :class:`TooLarge`, and :class:`Cancelled` when the client goes away.

    Args:
        request: not read yet.
        limit_bytes: largest body.
        held: counts it, and raises :class:`Unavailable` when there is no room.
    """
    pieces = []
    async for piece in bounded_stream(request, limit_bytes, what="the request body"):
        if held is not None:
            held.take(len(piece))
        pieces.append(piece)
    return b"".join(pieces)


async def body_object(request: Request, limit_bytes: int, held: Held | None = None) -> dict[str, JsonValue]:
    """The body as a JSON object, empty where there is none; raises :class:`BadInput`, else as :func:`read_body`."""
    body = await read_body(request, limit_bytes, held)
    if len(body) > IN_PLACE_BYTES:
        return await asyncio.to_thread(_large_object, body)
    return parse_object(body, _FIELD) if body.strip() else {}


def _large_object(body: bytes) -> dict[str, JsonValue]:
    """What makes a load large are its files, each one string; each value beside them takes memory of its own."""
    check_depth(body, _FIELD)
    if sum(map(body.count, _SEPARATORS)) > MAX_VALUES:
        raise TooLarge(f"may hold at most {MAX_VALUES:,} values", field=_FIELD)
    return parse_object(body, _FIELD)


def refused(error: ReelmeshError) -> Response:
    """The answer to an error; one that may pass says when to come again."""
    wait_s = error.retry_after_s if isinstance(error, QueueFull) else RETRY_AFTER_S
    headers = {"Retry-After": str(wait_s)} if error.retryable else {}
    if isinstance(error, TooLarge):
        # Else the server would go on reading, and dropping, whatever the client still sends.
        headers["Connection"] = "close"
    return whole(error_body(error), error.http_status, headers)


def whole(document: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A document as an answer."""
    return Response(to_json(document), status, headers, media_type="application/json")
