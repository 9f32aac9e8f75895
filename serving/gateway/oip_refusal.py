"""What a replica's refusal by HTTP means, as an error of ours; used wherever the gateway asks replicas.

The one invariant: status and words are the replica's, cut to a bound; an answer that is no refusal in the protocol's
shape is an engine's failure.
"""

from collections.abc import Mapping
from typing import Final

import httpx

from serving.errors import (
    BadInput,
    Conflict,
    DeadlineExceeded,
    EngineFailed,
    NotFound,
    ReelmeshError,
    TooLarge,
    Unavailable,
    Unsupported,
    foreign_text,
)
from serving.protocol.oip_json import parse_object

_KINDS: Final[Mapping[int, type[ReelmeshError]]] = {
    kind.http_status: kind
    for kind in (BadInput, NotFound, Conflict, TooLarge, Unsupported, Unavailable, DeadlineExceeded)
}


def refusal(answer: httpx.Response) -> ReelmeshError:
    """The error of an answer that is no success; its body must have been read."""
    kind = _KINDS.get(answer.status_code, EngineFailed)
    try:
        return kind(foreign_text(parse_object(answer.content, "answer").get("error", "")))
    except BadInput:
        return kind(f"the replica answered {answer.status_code}")


def no_answer(what: str, error: Exception) -> Unavailable:
    """The error for a replica that cannot be reached, or ended while it was asked."""
    return Unavailable(
        f"{what} did not answer: {foreign_text(error) or type(error).__name__}", fix="try again in a moment"
    )
