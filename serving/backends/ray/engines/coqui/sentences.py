"""Texts in pieces that XTTS speaks in one go; used by XttsEngine in ``prepare``.

The one invariant: no piece is longer than its language's bound, and together they hold every word of the text in order.
"""

import textwrap
from dataclasses import dataclass
from typing import Final

from serving.backends.ray.engines.espeak_text import clauses

_BREATH_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Sentence:
    """A piece of text and the silence after it, in seconds."""

    text: str
    pause_s: float


def sentences(text: str, most_chars: int) -> list[Sentence]:
    """Split at sentence ends, then between words.

    Args:
        text: of a request.
        most_chars: of a piece.

    Raises:
        BadInput: nothing in it can be spoken.
    """
    found: list[Sentence] = []
    for clause in clauses(text):
        lines = textwrap.wrap(
            " ".join(word.text for word in clause.words), most_chars, break_on_hyphens=False, drop_whitespace=True
        )
        found += [Sentence(line, _BREATH_S) for line in lines[:-1]]
        found += [Sentence(line, clause.pause_s) for line in lines[-1:]]
    return found
