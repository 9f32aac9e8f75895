"""From words as people write them to pronunciations for PocketSphinx's English model; pure, used by its engine.

The one invariant: every pronunciation uses only the 39 ARPAbet phones of the CMU dictionary, without stress.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

_IPA: Final[Mapping[str, str]] = {
    "tʃ": "CH", "dʒ": "JH", "aɪ": "AY", "aʊ": "AW", "eɪ": "EY", "oʊ": "OW", "əʊ": "OW", "ɔɪ": "OY",
    "iː": "IY", "uː": "UW", "ɜː": "ER", "ɑː": "AA", "ɔː": "AO", "oː": "AO", "iə": "IY AH", "n̩": "AH N",
    "l̩": "AH L", "əl": "AH L", "i": "IY", "ɪ": "IH", "ᵻ": "IH", "e": "EH", "ɛ": "EH", "æ": "AE", "a": "AE",
    "ɑ": "AA", "ɒ": "AA", "ɔ": "AO", "o": "OW", "ʌ": "AH", "ə": "AH", "ɐ": "AH", "ʊ": "UH", "u": "UW",
    "ɚ": "ER", "ɝ": "ER", "ʃ": "SH", "ʒ": "ZH", "θ": "TH", "ð": "DH", "ŋ": "NG", "ɡ": "G", "g": "G",
    "j": "Y", "ɹ": "R", "r": "R", "ɾ": "T", "ʔ": "T", "h": "HH", "x": "K", "ɬ": "L", "m": "M", "n": "N",
    "l": "L", "p": "P", "b": "B", "t": "T", "d": "D", "k": "K", "f": "F", "v": "V", "s": "S", "z": "Z",
    "w": "W",
}  # fmt: skip
"""espeak-ng's en-us symbols to ARPAbet; the longest match counts, everything else (length, stress) is dropped."""

_LETTERS: Final[Mapping[str, str]] = {
    "sh": "SH", "ch": "CH", "th": "TH", "ph": "F", "ng": "NG", "ee": "IY", "oo": "UW", "ou": "AW", "ow": "OW",
    "ai": "EY", "ay": "EY", "ea": "IY", "er": "ER", "ck": "K", "qu": "K W",
    "a": "AE", "b": "B", "c": "K", "d": "D", "e": "EH", "f": "F", "g": "G", "h": "HH", "i": "IH", "j": "JH", "k": "K",
    "l": "L", "m": "M", "n": "N", "o": "AA", "p": "P", "q": "K", "r": "R", "s": "S", "t": "T", "u": "AH", "v": "V",
    "w": "W", "x": "K S", "y": "IY", "z": "Z",
    "0": "Z IH R OW", "1": "W AH N", "2": "T UW", "3": "TH R IY", "4": "F AO R", "5": "F AY V", "6": "S IH K S",
    "7": "S EH V AH N", "8": "EY T", "9": "N AY N",
}  # fmt: skip
"""Letters to their commonest sounds in English, where espeak-ng is not there to ask."""

_PARTS: Final = re.compile(r"[$€£₹]?[^\W_]+(?:['.,][^\W_]+)*")
_SIGNS: Final = str.maketrans({"&": " and ", "%": " percent ", "+": " plus ", "=": " equals ", "@": " at "})
_LONGEST_KEY: Final = 2


def parts_of(said: str) -> list[str]:
    """What is looked up of one word: ``state-of-the-art`` has four parts, ``3.5`` and ``it's`` one."""
    return [part.lower() for part in _PARTS.findall(said.translate(_SIGNS))]


def from_ipa(phonemes: Iterable[str]) -> str:
    """ARPAbet phones, separated by spaces, of IPA phonemes; empty when none is known."""
    return _translate("".join(phonemes), _IPA)


def from_letters(word: str) -> str:
    """ARPAbet phones by plain letter rules; never empty."""
    return _translate(word.lower(), _LETTERS) or "AH"


def _translate(text: str, table: Mapping[str, str]) -> str:
    phones, at = [], 0
    while at < len(text):
        for length in range(_LONGEST_KEY, 0, -1):
            if found := table.get(text[at : at + length]):
                phones.append(found)
                at += length - 1
                break
        at += 1
    return " ".join(phones)
