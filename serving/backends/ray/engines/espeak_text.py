"""Text to what espeak-ng shall say: clauses with pauses, and which words they came from; used by the espeak engine.

The one invariant: the clauses' words are exactly the words of the text, in order and unchanged, so captions made from
them read as the author wrote; only the ``said`` form of a word may differ.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from serving.errors import BadInput

MAX_WORD_CHARS: Final = 400
"""A longer run without a space is not a word in any language spoken here."""

SENTENCE_PAUSE_S: Final = 0.36
PARAGRAPH_PAUSE_S: Final = 0.75
CLAUSE_PAUSE_S: Final = 0.16
_LONG_CLAUSE_CHARS: Final = 260
_LONGEST_CLAUSE_CHARS: Final = 500

_SENTENCE_END: Final = re.compile(r"[.!?…।॥؟۔‼⁇⁉⁈][\"'”’»)\]]*$")
_CLAUSE_END: Final = re.compile(r"[,;:،؛—–][\"'”’»)\]]*$")
_ABBREVIATION: Final = re.compile(
    r"^[\"'(\[“‘]*(?:[A-Za-z]|mr|mrs|ms|dr|prof|st|vs|jr|sr|no|gen|col|capt|rev|hon|fig|e\.g|i\.e)\.$",
    re.IGNORECASE,
)
_PARAGRAPH: Final = re.compile(r"\n\s*\n")
_URL: Final = re.compile(r"^(?:https?://|www\.)", re.IGNORECASE)
_SPOKEN_SIGNS: Final = "&+=@%"
_KEPT: Final = "\u200c\u200d+=%$€£¥₹&@°"
_REPLACED: Final = str.maketrans(
    {
        **dict.fromkeys('“”„«»‹›"*_#`~^|\\{}[]()<>•·●■→←', " "),
        **dict.fromkeys("‘’‛ʼ´", "'"),
        **dict.fromkeys("‐‑‒", "-"),
        **dict.fromkeys("—–―", ","),
        "…": ".",
        "/": " ",
    }
)


@dataclass(frozen=True, slots=True)
class SaidWord:
    """A word of the text and where its spoken form stands in its clause (characters ``first`` to ``last``)."""

    text: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Clause:
    """A stretch said in one breath, and the pause after it in seconds."""

    said: str
    words: tuple[SaidWord, ...]
    pause_s: float


def clauses(text: str) -> list[Clause]:
    """Split a text at its sentence ends, long sentences also at commas.

    Punctuation that stands alone (a dash) becomes part of the word before it.

    Raises:
        BadInput: nothing in the text can be spoken, or a word is longer than :data:`MAX_WORD_CHARS`.
    """
    found: list[Clause] = []
    for paragraph in _PARAGRAPH.split(text):
        for words in _sentences(words_of(paragraph)):
            found.extend(_breaths(words))
        if found:
            found[-1] = _with_pause(found[-1], PARAGRAPH_PAUSE_S)
    if not found:
        raise BadInput("the text holds nothing that can be spoken", field="text", fix="write at least one word")
    return [*found[:-1], _with_pause(found[-1], 0.0)]


def said_form(word: str) -> str:
    """How a word is given to espeak-ng: marks that it would read out are dropped, dashes become commas.

    Characters it has no sound for (emoji, controls, private use) go; joiners, which Indic scripts need, stay.
    """
    word = _URL.sub("", word) if _URL.match(word) else word
    kept = "".join(
        character if character in _KEPT or unicodedata.category(character)[0] in "LMNPZ" else " "
        for character in unicodedata.normalize("NFKC", word.translate(_REPLACED))
    )
    return " ".join(kept.split())


def words_of(paragraph: str) -> list[tuple[str, str]]:
    """(as written, as said) of every word; what cannot be said joins the word before it, or the one after.

    Raises:
        BadInput: a word is longer than :data:`MAX_WORD_CHARS`.
    """
    words: list[tuple[str, str]] = []
    unsaid = ""
    for token in paragraph.split():
        if len(token) > MAX_WORD_CHARS:
            raise BadInput(
                f"the text holds a word of {len(token)} characters ({token[:20]}...)",
                field="text",
                fix=f"put spaces between the words; {MAX_WORD_CHARS} is the longest",
            )
        said = said_form(token)
        if any(character.isalnum() or character in _SPOKEN_SIGNS for character in said):
            words.append((f"{unsaid} {token}" if unsaid else token, said))
            unsaid = ""
        elif words:
            pause = said[-1:] if said[-1:] in {",", ".", "!", "?", ";", ":"} else ""
            written, before = words[-1]
            words[-1] = (f"{written} {token}", before if before[-1:] == pause else before + pause)
        else:
            unsaid = f"{unsaid} {token}" if unsaid else token
    return words


def _sentences(words: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    sentence: list[tuple[str, str]] = []
    for word in words:
        sentence.append(word)
        if _SENTENCE_END.search(word[0]) and not _ABBREVIATION.match(word[0]):
            yield sentence
            sentence = []
    if sentence:
        yield sentence


def _breaths(words: list[tuple[str, str]]) -> Iterator[Clause]:
    """A sentence in pieces that espeak-ng says without losing its intonation."""
    piece: list[tuple[str, str]] = []
    length = 0
    for index, word in enumerate(words):
        piece.append(word)
        length += len(word[1]) + 1
        last = index == len(words) - 1
        at_comma = length > _LONG_CLAUSE_CHARS and _CLAUSE_END.search(word[0]) is not None
        if last or at_comma or length > _LONGEST_CLAUSE_CHARS:
            yield _clause(piece, SENTENCE_PAUSE_S if last else CLAUSE_PAUSE_S if at_comma else 0.0)
            piece, length = [], 0


def _clause(words: list[tuple[str, str]], pause_s: float) -> Clause:
    said, placed = "", []
    for written, spoken in words:
        first = len(said) + (1 if said else 0)
        said = f"{said} {spoken}" if said else spoken
        placed.append(SaidWord(written, first, len(said)))
    return Clause(said, tuple(placed), pause_s)


def _with_pause(clause: Clause, pause_s: float) -> Clause:
    return Clause(clause.said, clause.words, pause_s)
