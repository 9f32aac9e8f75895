"""Bounded decompression of request bodies, and compression of responses; used by HTTP servers that read OIP.

The one invariant: never more than ``limit_bytes`` are held, however small the compressed body is.
"""

import zlib
from typing import Final

from serving.errors import BadInput, TooLarge, Unsupported, foreign_text

_WINDOW_BITS: Final = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_HEADER_CHARS: Final = 1024
# Tensors hardly shrink further at higher levels, which cost several times as much.
_LEVEL: Final = 1


def decompress(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """The plain body.

    Args:
        body: as received.
        encoding: the header ``Content-Encoding``; empty or ``identity`` leaves the body as it is.
        limit_bytes: most bytes the plain body may have.

    Raises:
        BadInput: the body is not of that encoding, or ends too early.
        TooLarge: the plain body is longer than the limit.
        Unsupported: another encoding than gzip or deflate.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in _WINDOW_BITS:
        raise Unsupported(
            f"{encoding[:32]!r} is not supported", field="Content-Encoding", fix="use gzip, deflate or none"
        )
    machine = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        plain = machine.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise BadInput(f"the body is not {encoding}: {foreign_text(error)}", field="Content-Encoding") from error
    if len(plain) > limit_bytes:
        raise TooLarge(f"is over {limit_bytes} bytes when decompressed", field="request body")
    if not machine.eof:
        raise BadInput(f"the {encoding} body ends too early", field="Content-Encoding")
    return plain


def accepted(header: str) -> str:
    """The encoding to answer with: gzip or deflate where ``Accept-Encoding`` names one, else empty."""
    offers = dict.fromkeys(
        name.strip().lower()
        for name, _, weight in (offer.partition(";") for offer in header[:_HEADER_CHARS].split(","))
        if weight.replace(" ", "") not in ("q=0", "q=0.0")
    )
    return next((encoding for encoding in _WINDOW_BITS if encoding in offers), "")


def compress(body: bytes, encoding: str) -> bytes:
    """The body in an encoding that :func:`accepted` returned."""
    machine = zlib.compressobj(_LEVEL, wbits=_WINDOW_BITS[encoding])
    return machine.compress(body) + machine.flush()
