"""gRPC's framing over HTTP/2, without its transport: length-prefixed messages, deadlines, statuses; used by replicas.

The one invariant: pure functions; a length that a client claims is compared with the bound before it is believed.
"""

from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

from serving.errors import BadInput, TooLarge
from serving.protocol.oip_compression import decompress

PREFIX_BYTES: Final = 5
"""A flag that says whether the message is compressed, and its length."""
_UNITS_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TIMEOUT_DIGITS: Final = 8
# What HTTP/2 headers may hold as it is; the rest is percent-encoded.
_SAFE: Final = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}"
_LONGEST_ESCAPE: Final = 12
MESSAGE_BYTES: Final = 4096
"""Most bytes of a status's text: clients refuse headers that are larger than 8 KiB together."""

STATUS_CODES: Final = {
    "OK": 0,
    "CANCELLED": 1,
    "UNKNOWN": 2,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
}
"""Those that the mesh's errors have."""


def frame(message: bytes) -> bytes:
    """A message with its prefix, not compressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def timeout_s(header: bytes | None) -> float | None:
    """Seconds of a ``grpc-timeout``; None where there is none."""
    if header is None:
        return None
    digits, unit = header[:-1], header[-1:]
    if not digits.isdigit() or len(digits) > _TIMEOUT_DIGITS or unit not in _UNITS_S:
        raise BadInput("must be up to 8 digits and a unit", field="grpc-timeout")
    return int(digits) * _UNITS_S[unit]


def status_trailers(status: str, text: str = "") -> list[tuple[bytes, bytes]]:
    """The trailers that end a call."""
    trailers = [(b"grpc-status", str(STATUS_CODES.get(status, STATUS_CODES["UNKNOWN"])).encode())]
    if text:
        told = quote(text, safe=_SAFE)
        if len(told) > MESSAGE_BYTES:
            told = quote(text[: MESSAGE_BYTES // _LONGEST_ESCAPE], safe=_SAFE)
        trailers.append((b"grpc-message", told.encode()))
    return trailers


class Frames:
    """Cuts what arrives into messages.

    Args:
        encoding: the header ``grpc-encoding``.
        limit_bytes: most bytes of one message, both as received and decompressed.
    """

    def __init__(self, encoding: str, limit_bytes: int) -> None:
        self._encoding = encoding
        self._limit_bytes = limit_bytes
        self._pieces: list[bytes] = []
        self._held = 0
        self._needed = PREFIX_BYTES

    def add(self, piece: bytes) -> Iterator[bytes]:
        """The messages that are whole now.

        Raises:
            TooLarge: a message is, or says it is, over the limit.
            BadInput: a message is compressed otherwise than announced.
        """
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held < self._needed:
            return
        data = memoryview(b"".join(self._pieces) if len(self._pieces) > 1 else piece)
        while len(data) >= PREFIX_BYTES:
            length = int.from_bytes(data[1:PREFIX_BYTES], "big")
            if length > self._limit_bytes:
                raise TooLarge(f"received message larger than max ({length} vs. {self._limit_bytes})", field="message")
            if len(data) < PREFIX_BYTES + length:
                break
            yield self._plain(data[0], bytes(data[PREFIX_BYTES : PREFIX_BYTES + length]))
            data = data[PREFIX_BYTES + length :]
        self._keep(bytes(data))

    def end(self) -> None:
        """Nothing more comes; raises :class:`BadInput` when that is in the middle of a message."""
        if self._held:
            raise BadInput(f"ends after {self._held} bytes of an unfinished message", field="message")

    def _keep(self, rest: bytes) -> None:
        self._pieces = [rest] if rest else []
        self._held = len(rest)
        self._needed = PREFIX_BYTES
        if len(rest) >= PREFIX_BYTES:
            self._needed += int.from_bytes(rest[1:PREFIX_BYTES], "big")

    def _plain(self, flag: int, message: bytes) -> bytes:
        if not flag:
            return message
        if flag != 1 or self._encoding in ("", "identity"):
            raise BadInput("is compressed, but grpc-encoding does not say how", field="message")
        return decompress(message, self._encoding, self._limit_bytes)
