"""Texts in the phonemes that Coqui's VITS networks were trained on, by espeak-ng; used by CoquiVitsEngine.

Coqui calls the program espeak-ng for it; here the library that the mesh brings answers, in a process of its own. The
one invariant: punctuation stays where it was, and what the network has no symbol for is refused by name.
"""

import asyncio
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from serving.backends.ray.engines.espeak_pool import EspeakPool
from serving.backends.ray.engines.espeak_text import Clause, clauses
from serving.backends.ray.engines.voices.spelling import Piece, SpelledWord
from serving.errors import BadInput, EngineFailed, Unsupported

_LANGUAGES: Final[Mapping[str, str]] = {"en": "en-us", "en-uk": "en-gb", "fr-fr": "fr"}
"""Languages of configurations that espeak-ng calls otherwise."""
_PUNCTUATION: Final = re.compile(r"([,.;:!?]+)")


def phonemize(text: str, language: str, vocabulary: Collection[str]) -> list[Piece]:
    """Split a text at its sentences and write each in IPA. Blocks; for worker threads.

    Args:
        text: of a request.
        language: as Coqui's configuration names it.
        vocabulary: symbols that the network knows.

    Raises:
        BadInput: nothing can be spoken, or phonemes that the network does not know.
        Unsupported: espeak-ng does not know the language.
    """
    parts = clauses(text)
    fragments = [_PUNCTUATION.split(part.said) for part in parts]
    spoken = asyncio.run(_ipa([piece for part in fragments for piece in part[::2]], _LANGUAGES.get(language, language)))
    pieces, position = [], 0
    for clause, part in zip(parts, fragments, strict=True):
        count = len(part[::2])
        pieces.append(piece_of(clause, spoken[position : position + count], part[1::2], vocabulary))
        position += count
    return pieces


def piece_of(clause: Clause, spoken: Sequence[str], marks: Sequence[str], vocabulary: Collection[str]) -> Piece:
    """One clause as symbols; its words are told where espeak-ng kept each apart.

    Args:
        clause: of the text.
        spoken: IPA of what stands between the marks, one more than these.
        marks: punctuation.
        vocabulary: symbols that the network knows.

    Raises:
        BadInput: phonemes that the network does not know.
    """
    said = spoken[0] + "".join(f"{mark} {after}" for mark, after in zip(marks, spoken[1:], strict=True))
    symbols = [symbol for symbol in " ".join(said.split()) if _kept(symbol, vocabulary)]
    unknown = dict.fromkeys(symbol for symbol in symbols if symbol not in vocabulary)
    if unknown:
        named = ", ".join(f"{symbol!r}" for symbol in list(unknown)[:5])
        raise BadInput(f"the model has no symbol for {named}", field="text", fix="write it in the model's language")
    starts = [0, *(index + 1 for index, symbol in enumerate(symbols) if symbol == " ")]
    ends = [*(start - 1 for start in starts[1:]), len(symbols)]
    told = len(starts) == len(clause.words) and all(first < last for first, last in zip(starts, ends, strict=True))
    placed = zip(clause.words, starts, ends, strict=True) if told else ()
    words = tuple(SpelledWord(word.text, first, last) for word, first, last in placed)
    return Piece(tuple(symbols), words, clause.pause_s)


def _kept(symbol: str, vocabulary: Collection[str]) -> bool:
    """Marks that only refine a phoneme may be missing, as in training; punctuation and phonemes may not."""
    return symbol in vocabulary or unicodedata.category(symbol) not in {"Mn", "Sk", "Pd", "Cf"}


async def _ipa(texts: Sequence[str], language: str) -> list[str]:
    pool = EspeakPool(1)
    try:
        return [await pool.ipa(text, language) if text.strip() else "" for text in texts]
    except EngineFailed as error:
        raise Unsupported(f"espeak-ng cannot pronounce {language!r}", field="language") from error
    finally:
        await pool.close()
