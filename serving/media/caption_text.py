"""What captions know of writing: widths, joins, and where a line breaks well; used by serving.media.captions.

The one invariant: cleaning removes only what cannot be seen (controls, bidirectional overrides, white space).
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from serving.media.caption_types import SpokenWord

_SENTENCE_END: Final = re.compile(r"[.!?…।॥。！？۔؟][\"'”’)\]»]*$")
_CLAUSE_END: Final = re.compile(r"[,;:、，；：،؛—–][\"'”’)\]»]*$")
_REMOVED_CATEGORIES: Final = frozenset({"Cc", "Cs"})
_BIDI_CONTROLS: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff\u2060")
_SPACELESS: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0eff\uff66-\uff9f]")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BREAK_BEFORE: Final[dict[str, frozenset[str]]] = {
    "en": _words(
        "and but or nor so yet because although though while when where which who whom whose that if unless "
        "until since before after than as with without from into about for to in on at by of"
    ),
    "de": _words("und aber oder denn weil dass wenn als ob der die das mit von für zu in auf"),
    "fr": _words("et mais ou donc car que qui dont où quand si avec pour dans sur de à"),
    "es": _words("y e o u pero porque que quien donde cuando si con para en de a por"),
    "it": _words("e o ma perché che chi dove quando se con per in di a da"),
    "pt": _words("e ou mas porque que quem onde quando se com para em de a por"),
    "hi": _words("और या लेकिन मगर क्योंकि कि जो जब अगर तो"),
}
"""Conjunctions, relative pronouns and prepositions: the word starts a new unit of sense."""

_NEVER_AFTER: Final[dict[str, frozenset[str]]] = {
    "en": _words("a an the my your his her its our their this these those mr mrs ms dr i we he she they"),
    "de": _words("ein eine einen einem der die das den dem mein dein sein ihr ich wir er sie"),
    "fr": _words("un une le la les des du mon ma mes ton ta son sa ses je tu il elle nous vous"),
    "es": _words("un una el la los las mi tu su yo él ella"),
}
"""Articles, possessives and subjects: they belong to the word after them."""

SENTENCE_COST: Final = 0.0
CLAUSE_COST: Final = 1.5
BEFORE_COST: Final = 3.0
PLAIN_COST: Final = 6.0
TORN_COST: Final = 9.0


def ends_sentence(text: str) -> bool:
    """Whether a word ends a sentence, quotes and brackets after the stop allowed."""
    return bool(_SENTENCE_END.search(text))


def break_cost(before: SpokenWord, after: SpokenWord | None, language: str) -> float:
    """How badly a break between two words reads: 0 after a sentence, 9 between an article and its noun."""
    if after is None or ends_sentence(before.text) or before.speaker != after.speaker:
        return SENTENCE_COST
    if _CLAUSE_END.search(before.text):
        return CLAUSE_COST
    base = language.split("-", maxsplit=1)[0]
    if after.glued or before.text.casefold() in _NEVER_AFTER.get(base, ()):
        return PLAIN_COST if _SPACELESS.match(after.text) else TORN_COST
    starts_unit = after.text.casefold() in _BREAK_BEFORE.get(base, ())
    ends_in_one = before.text.casefold() in _BREAK_BEFORE.get(base, ())
    return BEFORE_COST if starts_unit and not ends_in_one else TORN_COST if ends_in_one else PLAIN_COST


def character_columns(character: str) -> int:
    """2 for wide characters, 0 for combining marks and joiners, else 1."""
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def text_columns(text: str) -> int:
    """Width of a line in columns."""
    return len(text) if text.isascii() else sum(map(character_columns, text))


def clean(text: str) -> str:
    """NFC text without controls, lone surrogates and bidirectional overrides; each run of space is one."""
    spaced = "".join(
        " " if character.isspace() else character
        for character in unicodedata.normalize("NFC", text)
        if character.isspace()
        or (unicodedata.category(character) not in _REMOVED_CATEGORIES and character not in _BIDI_CONTROLS)
    )
    return " ".join(spaced.split())


def word_from_raw(text: str, start_s: float, end_s: float, speaker: str) -> Iterator[SpokenWord]:
    """The caption words of one engine word: none when nothing would be seen, several when it holds spaces."""
    parts = [part for part in clean(text).split() if text_columns(part)]
    if not parts:
        return
    share = max(0.0, end_s - start_s) / len(parts)
    name = clean(speaker)
    for index, part in enumerate(parts):
        begin = start_s + index * share
        yield SpokenWord(part, begin, begin + share, name, glued=bool(_SPACELESS.match(part)) and index == 0)


def split_long(word: SpokenWord, columns: int) -> list[SpokenWord]:
    """A word wider than a line as glued pieces that fit, each with its part of the time; others unchanged."""
    if text_columns(word.text) <= columns:
        return [word]
    pieces = list(_pieces(word.text, columns))
    share = (word.end_s - word.start_s) / len(pieces)
    return [
        SpokenWord(
            piece,
            word.start_s + index * share,
            word.start_s + (index + 1) * share,
            word.speaker,
            glued=word.glued or index > 0,
        )
        for index, piece in enumerate(pieces)
    ]


def _pieces(text: str, columns: int) -> Iterator[str]:
    piece, width = "", 0
    for character in text:
        extra = character_columns(character)
        if width + extra > columns:
            yield piece
            piece, width = "", 0
        piece, width = piece + character, width + extra
    yield piece
