"""Bounded JSON for everything that reads a client's JSON: the OIP decoders, typed tasks, the gateway.

The one invariant: a hostile document costs time linear in its length and never a deep stack.
"""

from typing import Final

from pydantic import JsonValue
from pydantic_core import from_json

from serving.errors import BadInput, foreign_text
from serving.protocol.oip_json_depth import deeper_than

MAX_DEPTH: Final = 64
_OPENERS: Final = (b"[", b"{")


def parse_json(data: bytes | memoryview, field: str, *, max_depth: int = MAX_DEPTH) -> JsonValue:
    """Parse one JSON document; raises :class:`BadInput` naming ``field`` when it is broken or too deep."""
    raw = bytes(data)
    check_depth(raw, field, max_depth=max_depth)
    try:
        value: JsonValue = from_json(raw)
    except ValueError as error:
        raise BadInput(f"not valid JSON: {foreign_text(error)}", field=field) from error
    return value


def check_depth(raw: bytes, field: str, *, max_depth: int = MAX_DEPTH) -> None:
    """Raise :class:`BadInput` for JSON that is too deep; whether it is JSON at all, its parser says."""
    if sum(map(raw.count, _OPENERS)) > max_depth and deeper_than(raw, max_depth):
        raise BadInput(f"JSON is nested more than {max_depth} deep", field=field)


def parse_object(data: bytes | memoryview, field: str) -> dict[str, JsonValue]:
    """Parse one JSON document that must be an object."""
    value = parse_json(data, field)
    if not isinstance(value, dict):
        raise BadInput("must be a JSON object", field=field)
    return value
