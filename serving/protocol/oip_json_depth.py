"""How deep JSON is nested, without parsing it; asked by everything that passes a client's JSON on or parses it.

The one invariant: time is linear in the length at memory's speed, memory is that of one block, and nothing recurses;
what is not JSON gets some answer, and a document that is gets the right one.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

_BLOCK: Final = 1 << 20
_QUOTE, _BACKSLASH = ord('"'), ord("\\")
_STEPS: Final = np.zeros(256, np.int8)
_STEPS[[ord("["), ord("{")]] = 1
_STEPS[[ord("]"), ord("}")]] = -1

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.intp]


class _State(NamedTuple):
    """What one block leaves to the next: depth, whether a string is open, whether its first byte is escaped."""

    depth: int = 0
    inside: bool = False
    escaped: bool = False


def deeper_than(raw: bytes | bytearray | memoryview, most: int) -> bool:
    """Whether arrays and objects are nested more than ``most`` deep."""
    text = np.frombuffer(raw, np.uint8)
    state = _State()
    for start in range(0, len(text), _BLOCK):
        found = _after(text[start : start + _BLOCK], state, most)
        if found is None:
            return True
        state = found
    return False


def _after(block: Bytes, state: _State, most: int) -> _State | None:
    """The state after a block; None when it goes too deep."""
    quotes = np.flatnonzero(block == _QUOTE)
    escapes = _escaped(block, state.escaped)
    if len(escapes):
        quotes = np.setdiff1d(quotes, escapes, assume_unique=True)
    steps = _STEPS[block]
    places = np.flatnonzero(steps)
    strings_begun = np.searchsorted(quotes, places) + state.inside
    walk = steps[places[strings_begun % 2 == 0]].cumsum(dtype=np.int64) + state.depth
    if len(walk) and walk.max() > most:
        return None
    depth = int(walk[-1]) if len(walk) else state.depth
    inside = bool((len(quotes) + state.inside) % 2)
    return _State(depth, inside, bool(len(escapes)) and int(escapes[-1]) == len(block))


def _escaped(block: Bytes, first: bool) -> Places:
    """Places after an odd run of backslashes; the place after the block may be one of them.

    Args:
        block: bytes.
        first: whether the block's first byte is escaped: a backslash there begins no escape of its own.
    """
    slashes = np.flatnonzero(block == _BACKSLASH)
    start: Places = np.zeros(int(first), np.intp)
    if first and len(slashes) and slashes[0] == 0:
        slashes = slashes[1:]
    if not len(slashes):
        return start
    begins = np.flatnonzero(np.diff(slashes, prepend=-2) != 1)
    lengths = np.diff(begins, append=len(slashes))
    ends = slashes[begins] + lengths
    return np.concatenate([start, ends[lengths % 2 == 1]])
