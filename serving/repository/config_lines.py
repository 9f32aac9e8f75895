"""Where each field of a config.pbtxt stands, since protobuf's parser does not tell; used by repository.places.

The one invariant: it is asked only about text that protobuf has parsed, so it need not find errors, and on any text it
ends in time proportional to its length.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

_TOKEN: Final = re.compile(
    r"""#[^\n]*|\s+|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[A-Za-z_]\w*|[{}<>\[\]:,;]|[^\s{}<>\[\]:,;#"']+"""
)
_PART: Final = re.compile(r"([A-Za-z_]\w*)(?:\[(\d+)\])?")

MAX_DEPTH: Final = 32
"""Triton's messages nest six deep; what is deeper is not looked at."""

Path = tuple[tuple[str, int], ...]
"""Names with their index; a field that is not repeated has index 0."""


def line_of(text: str, field: str) -> int:
    """Line of a field such as ``input[1].dims``, or of the nearest one around it that is written; 0 where none is."""
    lines = _lines(text)
    path = tuple((name, int(index or 0)) for name, index in _PART.findall(field))
    for length in range(len(path), 0, -1):
        if (line := lines.get(path[:length])) is not None:
            return line
    return 0


@lru_cache(maxsize=8)
def _lines(text: str) -> Mapping[Path, int]:
    """Line of each field. A list's brackets add nothing: ``[ {..}, {..} ]`` is the field written twice."""
    found: dict[Path, int] = {}
    counts: dict[tuple[Path, str], int] = {}
    open_messages: list[tuple[Path, str, bool]] = []
    inside: Path = ()
    name, in_list, line = "", False, 1
    value_due = False
    for piece in _TOKEN.findall(text):
        start, line = line, line + piece.count("\n")
        if piece[0] == "#" or piece.isspace() or piece in ",;":
            continue
        if piece in "[]":
            in_list, value_due = piece == "[", piece == "["
        elif piece in "{<":
            here = _next(inside, name, start, counts, found)
            if len(open_messages) == MAX_DEPTH:
                break
            open_messages.append((inside, name, in_list))
            inside, in_list, value_due = here, False, False
        elif piece in "}>":
            if open_messages:
                inside, name, in_list = open_messages.pop()
            value_due = in_list
        elif piece == ":":
            value_due = True
        elif value_due or in_list:
            _next(inside, name, start, counts, found)
            value_due = in_list
        else:
            name = piece
            found.setdefault((*inside, (name, counts.get((inside, name), 0))), start)
    return found


def _next(inside: Path, name: str, line: int, counts: dict[tuple[Path, str], int], found: dict[Path, int]) -> Path:
    """Where the next value of a field stands; the first one on the line of the field's name."""
    index = counts.get((inside, name), 0)
    counts[inside, name] = index + 1
    here: Path = (*inside, (name, index))
    found.setdefault(here, line)
    return here
