"""Mouth shapes of phonemes: a table from IPA symbols to visemes; used by mouth_track.

The one invariant: every symbol that espeak-ng can emit has a shape; what is unknown is taken by its base letter, and
what has none keeps the mouth as its neighbours have it.
"""

import unicodedata
from typing import Final, NamedTuple


class Viseme(NamedTuple):
    """A mouth shape; every part but ``width`` lies in 0..1.

    Attributes:
        jaw: how far the jaw drops.
        width: -1 (drawn together, as in "oo") to 1 (spread, as in "ee").
        pout: how far the lips come forward and fill out.
        upper: how far the upper lip rises.
        tuck: lower lip under the upper teeth, as for "f".
        press: lips pressed together, as for "m".
        teeth: how close the lower teeth come to the upper ones.
        tongue: how high the tongue tip lies.
        weight: how strongly the shape asserts itself against its neighbours.
    """

    jaw: float = 0.0
    width: float = 0.0
    pout: float = 0.0
    upper: float = 0.0
    tuck: float = 0.0
    press: float = 0.0
    teeth: float = 0.0
    tongue: float = 0.0
    weight: float = 1.0


PARTS: Final = Viseme._fields[:-1]
"""The parts of a shape in order, without its weight."""

REST: Final = Viseme()

_SHAPES: Final[tuple[tuple[str, Viseme], ...]] = (
    # Vowels, by height and rounding (Handbook of the IPA, vowel chart).
    ("a ɑ", Viseme(jaw=1.0, width=0.1, upper=0.35, weight=1.1)),
    ("æ", Viseme(jaw=0.88, width=0.45, upper=0.4, weight=1.1)),
    ("ɐ ʌ", Viseme(jaw=0.72, width=0.1, upper=0.3)),
    ("ɛ e", Viseme(jaw=0.5, width=0.6, upper=0.4, teeth=0.1)),
    ("ɪ", Viseme(jaw=0.34, width=0.6, upper=0.35, teeth=0.2)),
    ("i", Viseme(jaw=0.27, width=1.0, upper=0.5, teeth=0.4, weight=1.1)),
    ("j", Viseme(jaw=0.24, width=0.8, upper=0.4, teeth=0.4, weight=0.7)),
    ("ɨ ɯ", Viseme(jaw=0.26, width=0.35, upper=0.3, teeth=0.3)),
    ("ə ɘ ᵊ", Viseme(jaw=0.38, width=0.05, upper=0.2, weight=0.6)),
    ("ɜ ɝ ɚ ɞ ɤ", Viseme(jaw=0.42, width=-0.3, pout=0.35, upper=0.2, weight=0.9)),
    ("ɒ ɔ ɶ", Viseme(jaw=0.8, width=-0.6, pout=0.65, upper=0.2, weight=1.2)),
    ("o ɵ œ", Viseme(jaw=0.55, width=-0.75, pout=0.8, upper=0.1, weight=1.2)),
    ("u ʊ ʉ ø y ʏ", Viseme(jaw=0.28, width=-1.0, pout=1.0, upper=0.05, weight=1.3)),
    # Consonants, by place of articulation.
    ("m b p ɓ ʙ", Viseme(press=1.0, weight=2.5)),
    ("f v ʋ ɱ ⱱ ɸ β", Viseme(jaw=0.13, width=0.15, upper=0.25, tuck=1.0, weight=2.2)),
    ("w ʍ ɥ", Viseme(jaw=0.2, width=-1.0, pout=1.0, weight=1.6)),
    ("θ ð", Viseme(jaw=0.3, width=0.15, upper=0.25, tongue=1.0, weight=1.1)),
    ("t d n ɾ ɗ", Viseme(jaw=0.24, width=0.3, upper=0.25, teeth=0.35, tongue=0.5, weight=0.7)),
    ("l ɫ ɬ ɮ ʎ ʟ", Viseme(jaw=0.36, width=0.2, upper=0.25, tongue=0.95, weight=0.8)),
    ("s z ɕ ʑ", Viseme(jaw=0.16, width=0.5, upper=0.25, teeth=1.0, weight=1.1)),
    ("ʃ ʒ ʂ ʐ", Viseme(jaw=0.2, width=-0.55, pout=0.75, upper=0.3, teeth=0.9, weight=1.4)),
    ("ʈ ɖ ɳ ɽ ɭ ɲ ɟ c ɻ", Viseme(jaw=0.28, width=0.1, upper=0.2, teeth=0.25, tongue=0.4, weight=0.6)),
    ("r ɹ ɺ", Viseme(jaw=0.28, width=-0.4, pout=0.45, upper=0.15, weight=0.9)),
    ("k g ɡ ŋ ɠ q ɢ ɴ x ɣ χ ʁ ʀ ç ʝ", Viseme(jaw=0.34, width=0.1, upper=0.2, weight=0.4)),
    ("h ɦ ħ ʕ ʜ ʔ ʢ", Viseme(jaw=0.36, width=0.0, upper=0.15, weight=0.3)),
)

TABLE: Final = {symbol: shape for symbols, shape in _SHAPES for symbol in symbols.split()}
"""Base letter to shape."""

VOWELS: Final = frozenset("aɑæɐʌɛeɪiɨɯəɘᵊɜɝɚɞɤɒɔɶoɵœuʊʉøyʏ")
CLOSED: Final = frozenset("mbpɓʙ")
LABIODENTAL: Final = frozenset("fvʋɱⱱ")
STRESS: Final = frozenset("ˈ'")

_ALIASES: Final = {"ɡ": "g", "ɫ": "l", "R": "r", "E": "ɛ", "I": "ɪ", "O": "ɔ", "U": "ʊ", "A": "ɑ", "N": "ŋ", "@": "ə"}


def letters(symbol: str) -> list[str]:
    """Base letters of one phoneme in order: "aɪ" gives both, "pʰ" and "ãː" one each, stress and length none."""
    found: list[str] = []
    for char in unicodedata.normalize("NFD", symbol):
        letter = char if char in TABLE else _ALIASES.get(char, char.lower())
        if letter in TABLE and not _is_modifier(char):
            found.append(letter)
    return found


def shapes(symbol: str) -> list[Viseme]:
    """The shapes of one phoneme, in the order they are taken; empty for silence and what nobody can see."""
    return [TABLE[letter] for letter in letters(symbol)]


def is_stressed(symbol: str) -> bool:
    """Whether the symbol carries primary stress."""
    return any(char in STRESS for char in symbol)


def _is_modifier(char: str) -> bool:
    """Superscripts such as ʰ ʲ ʷ decompose into letters only under NFKD; they colour a phoneme, they are none."""
    return unicodedata.category(char) in {"Lm", "Mn", "Sk"} and char != "ᵊ"
