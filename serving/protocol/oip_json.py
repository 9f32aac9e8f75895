"""Bounded JSON for everything that reads a client's JSON: the OIP decoders, typed tasks, the gateway.

The one invariant: a hostile document costs time linear in its length and never a deep stack.
"""

import re
from typing import Final

from pydantic import JsonValue
from pydantic_core import from_json

from serving.errors import BadInput, foreign_text

MAX_DEPTH: Final = 64
_OPENERS: Final = (b"[", b"{")
# Possessive, and the closing quote optional: an unterminated string is read once, not again from every quote.
_TOKENS: Final = re.compile(rb'[\[\]{}]|"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


def parse_json(data: bytes | memoryview, field: str, *, max_depth: int = MAX_DEPTH) -> JsonValue:
    """Parse one JSON document; raises :class:`BadInput` naming ``field`` when it is broken or too deep."""
    raw = bytes(data)
    if _deeper_than(raw, max_depth):
        raise BadInput(f"JSON is nested more than {max_depth} deep", field=field)
    try:
        value: JsonValue = from_json(raw)
    except ValueError as error:
        raise BadInput(f"not valid JSON: {foreign_text(error)}", field=field) from error
    return value


def parse_object(data: bytes | memoryview, field: str) -> dict[str, JsonValue]:
    """Parse one JSON document that must be an object."""
    value = parse_json(data, field)
    if not isinstance(value, dict):
        raise BadInput("must be a JSON object", field=field)
    return value


def _deeper_than(raw: bytes, max_depth: int) -> bool:
    if sum(map(raw.count, _OPENERS)) <= max_depth:
        return False
    depth = 0
    for token in _TOKENS.finditer(raw):
        first = token[0][:1]
        if first in _OPENERS:
            depth += 1
            if depth > max_depth:
                return True
        elif first != b'"':
            depth -= 1
    return False
