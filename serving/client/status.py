"""gRPC statuses as errors of serving.errors, the one table of it; used by serving.client and the Triton backend.

The one invariant: what went wrong on the wire leaves as the class that its status stands for, never by its text.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import grpc

from serving.errors import (
    BadInput,
    Cancelled,
    Conflict,
    DeadlineExceeded,
    EngineFailed,
    Forbidden,
    NotFound,
    QueueFull,
    RateLimited,
    ReelmeshError,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
    foreign_text,
)

ERRORS: Final[Mapping[str, type[ReelmeshError]]] = {
    "INVALID_ARGUMENT": BadInput,
    "OUT_OF_RANGE": BadInput,
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": Forbidden,
    "NOT_FOUND": NotFound,
    "ALREADY_EXISTS": Conflict,
    "FAILED_PRECONDITION": Conflict,
    "UNIMPLEMENTED": Unsupported,
    "RESOURCE_EXHAUSTED": TooLarge,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "CANCELLED": Cancelled,
    "UNAVAILABLE": Unavailable,
}
"""gRPC status to error; every other status is :class:`EngineFailed`."""

RETRY_AFTER: Final = "retry-after"
"""Metadata, in seconds, of a call that was turned away before it ran: a full queue, a rate."""
RETRY_PUSHBACK_MS: Final = "grpc-retry-pushback-ms"
"""The same in milliseconds, as gRPC names it."""
LONGEST_RETRY_AFTER_S: Final = 60
_HTTP_ANSWER: Final = re.compile(r"Received http2 header with status: (?:400|404|405|415)\b")
"""What gRPC says of an answer without a gRPC status, for those that HTTP servers have for a path they do not know."""
_HTTP_PORT: Final = "this looks like an HTTP port; the client wants the gRPC address (8001)"
_UNITS_S: Final = {RETRY_AFTER: 1.0, RETRY_PUSHBACK_MS: 1e-3}


@dataclass(frozen=True, slots=True)
class Turned:
    """How a call failed.

    Args:
        error: what the caller is told.
        ran: whether the call may have run.
        retry_after_s: how long the server asks to wait, where it says so.
    """

    error: ReelmeshError
    ran: bool = True
    retry_after_s: float | None = None


def error_of(status: str, text: object, place: str, server: str = "") -> ReelmeshError:
    """The error that a status stands for.

    Args:
        status: gRPC's name of it, for example ``NOT_FOUND``.
        text: what the server said.
        place: the model, or whatever the call was about.
        server: put before the text, where several servers are talked to.
    """
    said = foreign_text(text)
    fix = _HTTP_PORT if _HTTP_ANSWER.search(said) else None
    return ERRORS.get(status, EngineFailed)(f"{server}: {said}" if server else said, field=place or None, fix=fix)


def turned(failure: grpc.aio.AioRpcError, place: str, server: str = "") -> Turned:
    """How a call failed, from grpc's exception."""
    status = failure.code().name
    error = error_of(status, failure.details(), place, server)
    wait = retry_after_s([*_pairs(failure.initial_metadata()), *_pairs(failure.trailing_metadata())])
    if wait is None or status not in ("RESOURCE_EXHAUSTED", "UNAVAILABLE"):
        return Turned(error)
    if status == "RESOURCE_EXHAUSTED":
        return Turned(RateLimited(error.problem, field=error.field), ran=False, retry_after_s=wait)
    return Turned(QueueFull(error.problem, field=error.field, retry_after_s=wait), ran=False, retry_after_s=wait)


def retry_after_s(metadata: Iterable[tuple[str, Any]]) -> int | None:
    """The bounded number of seconds that the server asks to wait, or None."""
    for name, value in metadata:
        unit_s = _UNITS_S.get(name.lower())
        if unit_s is not None and isinstance(value, str) and value.isascii() and value.isdigit():
            return min(math.ceil(int(value[:9]) * unit_s), LONGEST_RETRY_AFTER_S)
    return None


def _pairs(metadata: Any) -> Iterable[tuple[str, Any]]:  # noqa: ANN401  grpc has no types
    return metadata or ()
