"""Reads request bodies within a bound; used by every route that takes one.

The one invariant: not a byte more than the bound is kept, whatever Content-Length says.
"""

from collections.abc import AsyncIterator

from fastapi import Request
from starlette.requests import ClientDisconnect

from serving.errors import BadInput, Cancelled, TooLarge


async def bounded_stream(request: Request, limit: int, *, what: str) -> AsyncIterator[bytes]:
    """The body in pieces.

    Raises:
        TooLarge: the body is, or says it is, longer than ``limit`` bytes.
        Cancelled: the client went away.
    """
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit, what)
    size = 0
    try:
        async for piece in request.stream():
            size += len(piece)
            if size > limit:
                raise _too_large(limit, what)
            yield piece
    except ClientDisconnect as error:
        raise Cancelled("the client went away while it was sending") from error


async def bounded_body(request: Request, limit: int, *, what: str) -> bytes:
    """The whole body; raises as :func:`bounded_stream` does, and :class:`BadInput` when there is none."""
    body = b"".join([piece async for piece in bounded_stream(request, limit, what=what)])
    if not body:
        raise BadInput("the body is empty", fix=f"send {what}")
    return body


def _too_large(limit: int, what: str) -> TooLarge:
    return TooLarge(f"{what} may have at most {limit:,} bytes")
