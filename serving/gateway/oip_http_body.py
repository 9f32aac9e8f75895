"""Inference bodies that the edge did not send straight to a replica: bounded, unpacked, checked; for OIP's routes.

The one invariant: what is passed on is plain, within its bounds, and its JSON is nested no deeper than a replica bears.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from pydantic import JsonValue

from serving.errors import TooLarge
from serving.gateway.oip_http_json import IN_PLACE_BYTES
from serving.protocol.oip_compression import decompress
from serving.protocol.oip_http import HEADER_LENGTH, header_length
from serving.protocol.oip_json import check_depth, parse_object
from serving.protocol.oip_shapes import check_json_shapes
from serving.settings import LimitSettings

T = TypeVar("T")

FIELD: Final = "request body"
LARGE_AT_ONCE: Final = 2
"""Large bodies that are looked at together; more would only hold more memory, as parsing is one thread's work."""
_OF_TENSORS: Final = (b'"data"', b'"shape"', b"\\u")


class Bodies:
    """Looks at bodies, at few large ones at a time: parsed, JSON takes up to thirty times its length.

    Args:
        limits: ``infer_bytes`` bounds a plain body, ``infer_json_bytes`` the JSON in it.
    """

    def __init__(self, limits: LimitSettings) -> None:
        self._limits = limits
        self._turns = asyncio.Semaphore(LARGE_AT_ONCE)

    async def checked(self, body: bytes, encoding: str, length: str | None) -> tuple[bytes, int]:
        """The plain body, and how much of it is JSON.

        Args:
            body: as received, at most ``limits.infer_bytes``.
            encoding: the header ``Content-Encoding``.
            length: the header ``Inference-Header-Content-Length``.

        Raises:
            BadInput: no such encoding in the body, a header length that is no length, JSON too deep.
            TooLarge: a bound was passed.
            Unsupported: another encoding than gzip or deflate.
        """
        large = len(body) > IN_PLACE_BYTES or bool(encoding)
        return await self._look(large, partial(check_body, body, encoding, length, self._limits))

    async def sequence(self, document: bytes) -> str | None:
        """The id of the sequence that an HTTP request belongs to; raises :class:`BadInput` for broken JSON."""
        return await self._look(len(document) > IN_PLACE_BYTES, partial(sequence_of, document))

    async def _look(self, large: bool, look: Callable[[], T]) -> T:
        if not large:
            return look()
        async with self._turns:
            return await asyncio.to_thread(look)


def check_body(body: bytes, encoding: str, length: str | None, limits: LimitSettings) -> tuple[bytes, int]:
    """As :meth:`Bodies.checked`, in the caller's thread."""
    plain = decompress(body, encoding, limits.infer_bytes)
    json_bytes = header_length(length, len(plain))
    if json_bytes > limits.infer_json_bytes:
        raise TooLarge(
            f"the JSON part may have at most {limits.infer_json_bytes:,} bytes",
            field=FIELD,
            fix=f"send tensors as binary data ({HEADER_LENGTH}), or raise limits.infer_json_bytes",
        )
    document = plain if json_bytes == len(plain) else plain[:json_bytes]
    check_depth(document, FIELD)
    # The words may be written with escapes.
    if any(word in document for word in _OF_TENSORS):
        check_json_shapes(parse_object(document, FIELD))
    return plain, json_bytes


def sequence_of(document: bytes) -> str | None:
    """As :meth:`Bodies.sequence`, in the caller's thread."""
    parsed = parse_object(document, FIELD) if document.strip() else {}
    parameters = parsed.get("parameters")
    inner = parameters.get("sequence_id") if isinstance(parameters, dict) else None
    return sequence_text(inner if inner is not None else parsed.get("sequence_id"))


def sequence_text(sequence: JsonValue) -> str | None:
    """A sequence id as text; 0, the empty string and what is no id mean that there is no sequence."""
    is_id = isinstance(sequence, int | str) and not isinstance(sequence, bool)
    return str(sequence) if is_id and sequence else None
