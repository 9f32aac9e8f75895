"""Tensors into and out of serialized ModelInfer messages with one copy and none; used by serving.client and load tests.

protobuf copies a bytes field on the way in, on serializing, on parsing and on reading; at 64 MiB those copies are most
of a call. Its encoding allows another way: raw contents are fields of the outermost message, so they can be put behind
the serialized rest, and found again by skipping from field to field.

The one invariant: the messages are the same to every protobuf parser, and whatever bytes come in, splitting them takes
time linear in the number of fields and raises BadInput when they are no message.
"""

from collections.abc import Sequence
from typing import Final

from serving.errors import BadInput
from serving.protocol.oip import Raw

REQUEST_CONTENTS: Final = 7
"""Number of ``ModelInferRequest.raw_input_contents``."""
RESPONSE_CONTENTS: Final = 6
"""Number of ``ModelInferResponse.raw_output_contents``."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIXED: Final = {_FIXED64: 8, _FIXED32: 4}
_LONGEST_VARINT: Final = 10
_CONTINUES: Final = 0x80


def join_contents(rest: bytes, field: int, contents: Sequence[Raw]) -> bytes:
    """A serialized message with raw contents behind it: one copy of each tensor.

    Args:
        rest: the serialized message without its raw contents.
        field: :data:`REQUEST_CONTENTS` or :data:`RESPONSE_CONTENTS`.
        contents: one for each tensor, contiguous bytes.
    """
    if not contents:
        return rest
    tag = _varint(field << 3 | _LENGTH)
    pieces: list[Raw] = [rest]
    for content in contents:
        pieces += (tag + _varint(len(content)), content)
    return b"".join(pieces)


def split_contents(message: Raw, field: int) -> tuple[bytes, list[memoryview]]:
    """The message without its raw contents, and each of those as a view of it.

    Raises:
        BadInput: this is not a protobuf message.
    """
    view = memoryview(message)
    contents: list[memoryview] = []
    rest: list[memoryview] = []
    position, kept = 0, 0
    while position < len(view):
        tag, start = _read_varint(view, position)
        end = _end_of_value(view, tag & 7, start)
        if tag == field << 3 | _LENGTH:
            _, start = _read_varint(view, start)
            contents.append(view[start:end])
            rest.append(view[kept:position])
            kept = end
        position = end
    rest.append(view[kept:])
    return b"".join(rest), contents


def _end_of_value(view: memoryview, wire_type: int, start: int) -> int:
    if wire_type == _LENGTH:
        length, start = _read_varint(view, start)
        end = start + length
    elif wire_type == _VARINT:
        _, end = _read_varint(view, start)
    elif wire_type in _FIXED:
        end = start + _FIXED[wire_type]
    else:
        raise BadInput(f"a field has wire type {wire_type}, which is not in use", field="message")
    if end > len(view):
        raise BadInput("a field reaches past the end", field="message")
    return end


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= _CONTINUES:
        encoded.append(number & 0x7F | _CONTINUES)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _read_varint(view: memoryview, position: int) -> tuple[int, int]:
    """The number at ``position``, and the position behind it."""
    number = 0
    for place, byte in enumerate(view[position : position + _LONGEST_VARINT]):
        number |= (byte & 0x7F) << 7 * place
        if byte < _CONTINUES:
            return number, position + place + 1
    raise BadInput("a number does not end", field="message")
