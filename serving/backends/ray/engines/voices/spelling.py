"""Text to the characters that a network of voices was trained on, with its words; used by the VITS engines.

The one invariant: what is not spoken (punctuation) may fall away; what is spoken is in the vocabulary, or is
refused by name.
"""

import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from serving.backends.ray.engines.espeak_text import Clause, clauses
from serving.errors import BadInput

_NAMED: Final = 5
_SILENT: Final = frozenset({"P", "Z", "C"})
"""General categories that are written and not spoken: punctuation, spaces, controls and joiners."""
_SPOKEN_SIGNS: Final = frozenset("&%@#*/\\§‰")
"""Of these, what stands for a word all the same, and would be missed."""


@dataclass(frozen=True, slots=True)
class SpelledWord:
    """A word as its author wrote it, and where its characters stand: ``symbols[first:last]``."""

    text: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Piece:
    """What is spoken in one pass of the network: a sentence or a part of one, and the pause after it in seconds."""

    symbols: tuple[str, ...]
    words: tuple[SpelledWord, ...]
    pause_s: float


def spell(text: str, vocabulary: Collection[str], *, romanised: bool = False) -> list[Piece]:
    """Split a text at its sentences and spell them.

    Args:
        text: of a request.
        vocabulary: characters that the network knows.
        romanised: whether it was trained on text in Latin letters, of a language that is written in others.

    Raises:
        BadInput: nothing can be spoken, or characters that the network does not know; the first five are named.
    """
    parts = clauses(unicodedata.normalize("NFC", text))
    unknown: dict[str, None] = {}
    pieces = [_piece(part, vocabulary, unknown) for part in parts]
    if unknown:
        raise _unreadable(list(unknown), romanised)
    found = [piece for piece in pieces if piece.words]
    if not found:
        raise BadInput("the text holds nothing that this model can speak", field="text", fix="write at least one word")
    return found


def _piece(clause: Clause, vocabulary: Collection[str], unknown: dict[str, None]) -> Piece:
    symbols: list[str] = []
    places: list[int] = []
    for character in clause.said:
        places.append(len(symbols))
        spelled = _spelled(character, vocabulary)
        if spelled is None:
            unknown[character] = None
            continue
        repeated = spelled == (" ",) and (not symbols or symbols[-1] == " ")
        symbols += () if repeated else spelled
    places.append(len(symbols))
    words = [(word.text, places[word.first], places[word.last]) for word in clause.words]
    spoken = tuple(SpelledWord(text, first, last) for text, first, last in words if last > first)
    return Piece(tuple(symbols), spoken, clause.pause_s)


def _spelled(character: str, vocabulary: Collection[str]) -> Sequence[str] | None:
    """One character in the network's own; None where it has none for something that is spoken."""
    for form in (character, character.lower(), unicodedata.normalize("NFD", character.lower())):
        if form and all(part in vocabulary for part in form):
            return tuple(form)
    category = unicodedata.category(character)
    if category[0] not in _SILENT or character in _SPOKEN_SIGNS:
        return None
    joins = category == "Cf"
    return () if joins or " " not in vocabulary else (" ",)


def _unreadable(unknown: list[str], romanised: bool) -> BadInput:
    named = [f"{character!r} ({unicodedata.name(character, 'no name')})" for character in unknown[:_NAMED]]
    more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
    fix = "write numbers, signs and foreign letters as words of the model's language"
    if romanised:
        fix = "the model reads its language in Latin letters: romanise the text first, with uroman for example"
    return BadInput(f"the model has no character {', '.join(named)}{more}", field="text", fix=fix)
