"""From espeak-ng's events to the times of words and phonemes; pure, used by the espeak engine.

The one invariant: every word of a clause gets a time, in order, inside its clause and without overlap.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.backends.ray.engines.espeak_pool import Spoken
from serving.backends.ray.engines.espeak_text import SaidWord
from serving.protocol.tasks import Phoneme, Word

_MARKS: Final = str.maketrans("", "", "ˌ.'|-_;̩")
"""Marks that espeak-ng adds to a phoneme's IPA symbol; primary stress stays, faces nod on it."""

_FUSED_SHARE: Final = 0.4
_AUDIBLE_SHARE: Final = 0.3

Sounding = tuple[int, int, str]
"""First sample, end sample and symbol of a phoneme that is not silence."""


def sounding_phonemes(spoken: Spoken) -> list[Sounding]:
    """Phonemes with their ends; each lasts until the next event, the last until the end of the sound.

    espeak-ng fuses some pairs (a vowel and the l after it) and gives the second no length: it gets the first one's end.
    The onset of some vowels is a nameless event with sound in it: it belongs to the vowel.
    """
    starts = [sample for sample, _ in spoken.phonemes] + [len(spoken.pcm)]
    threshold = _AUDIBLE_SHARE * _rms(spoken.pcm)
    found: list[Sounding] = []
    onset: int | None = None
    for (start, name), end in zip(spoken.phonemes, starts[1:], strict=True):
        symbol = "" if name.startswith("(") else name.translate(_MARKS)
        if symbol and end > start:
            found.append((start if onset is None else onset, end, symbol))
        elif symbol and found and found[-1][1] == start:
            first, _, fused = found[-1]
            middle = start - round((start - first) * _FUSED_SHARE)
            found[-1:] = [(first, middle, fused), (middle, start, symbol)]
        onset = start if not symbol and end > start and _rms(spoken.pcm[start:end]) > threshold else None
    return found


def place_words(
    words: Sequence[SaidWord], spoken: Spoken, phonemes: Sequence[Sounding], to_s: float, offset_s: float
) -> list[Word]:
    """Times of a clause's words.

    Args:
        words: with their characters in the text that was spoken.
        spoken: the events.
        phonemes: of :func:`sounding_phonemes`.
        to_s: seconds per sample.
        offset_s: where the clause starts.
    """
    spans: list[tuple[int, int] | None] = [None] * len(words)
    firsts = [word.first for word in words]
    event_samples = [sample for _, _, sample in spoken.words]
    for start, end, _ in phonemes:
        event = max(0, bisect_right(event_samples, start) - 1)
        position = spoken.words[event][0] if spoken.words else 0
        index = max(0, bisect_right(firsts, position) - 1)
        known = spans[index]
        spans[index] = (start, end) if known is None else (min(known[0], start), max(known[1], end))
    filled = _fill(spans, [len(word.text) for word in words], len(spoken.pcm))
    return [
        Word(text=word.text, start_s=offset_s + start * to_s, end_s=offset_s + end * to_s)
        for word, (start, end) in zip(words, filled, strict=True)
    ]


def place_phonemes(phonemes: Sequence[Sounding], to_s: float, offset_s: float) -> list[Phoneme]:
    """Times of a clause's phonemes."""
    return [
        Phoneme(symbol=symbol, start_s=offset_s + start * to_s, end_s=offset_s + end * to_s)
        for start, end, symbol in phonemes
    ]


def _fill(spans: Sequence[tuple[int, int] | None], weights: Sequence[int], end: int) -> list[tuple[float, float]]:
    """Words that espeak-ng said together with a neighbour ("of the") share its span by their lengths in letters."""
    known = [index for index, span in enumerate(spans) if span is not None]
    if not known:
        return _share(0.0, float(end), weights)
    filled: list[tuple[float, float]] = []
    for place, index in enumerate(known):
        first = 0 if place == 0 else index
        last = known[place + 1] if place + 1 < len(known) else len(spans)
        span = spans[index] or (0, end)
        start = max(float(span[0]), filled[-1][1] if filled else 0.0)
        filled.extend(_share(start, max(start, float(span[1])), weights[first:last]))
    return filled


def _share(start: float, end: float, weights: Sequence[int]) -> list[tuple[float, float]]:
    total, spans, at = sum(weights) or 1, [], start
    for weight in weights:
        until = min(end, at + (end - start) * weight / total)
        spans.append((at, until))
        at = until
    return spans


def _rms(samples: NDArray[np.int16]) -> float:
    return float(np.sqrt(np.square(samples, dtype=np.float64).mean())) if len(samples) else 0.0
