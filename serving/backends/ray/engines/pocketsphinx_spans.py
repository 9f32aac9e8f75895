"""Stretches of time for alignment and recognition: gaps filled, utterances cut at quiet places; pure.

The one invariant: what comes out is in order, without overlap and inside the sound.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

_HOP_S: Final = 0.02
_MAX_UTTERANCE_S: Final = 15.0
_MIN_UTTERANCE_S: Final = 0.2
_PAUSE_S: Final = 0.3
_QUIET_DB: Final = -35.0

Samples = NDArray[np.float32]
Span = tuple[float, float]


def join_parts(counts: Sequence[int], spans: Sequence[Span | None]) -> list[Span | None]:
    """The span of every word from those of its parts; ``counts`` says how many parts each word has."""
    joined: list[Span | None] = []
    at = 0
    for count in counts:
        known = [span for span in spans[at : at + count] if span is not None]
        joined.append((known[0][0], known[-1][1]) if known else None)
        at += count
    return joined


def fill_gaps(spans: Sequence[Span | None], weights: Sequence[int], bounds: Span) -> list[Span]:
    """Give lost words the time between their neighbours (or ``bounds``), shared by their lengths in letters."""
    filled: list[Span] = []
    index = 0
    while index < len(spans):
        span = spans[index]
        before = filled[-1][1] if filled else bounds[0]
        if span is not None:
            start = max(span[0], filled[-1][1] if filled else 0.0)
            filled.append((start, max(start, span[1])))
            index += 1
            continue
        run = index
        while run < len(spans) and spans[run] is None:
            run += 1
        following = spans[run] if run < len(spans) else None
        after = max(before, following[0] if following is not None else bounds[1])
        edges = before + (after - before) * np.cumsum([0, *weights[index:run]]) / sum(weights[index:run])
        filled += [(float(first), float(last)) for first, last in itertools.pairwise(edges)]
        index = run
    return filled


def speech_bounds(samples: Samples, rate_hz: int) -> Span:
    """First and last moment within 35 dB of the loudest 20 ms, in seconds; the whole where all is silent."""
    level = _levels(samples, rate_hz)
    loud = np.flatnonzero(level > max(level.max(initial=0.0) * 10 ** (_QUIET_DB / 20), 1e-6))
    if not loud.size:
        return 0.0, len(samples) / rate_hz
    return float(loud[0] * _HOP_S), float(min((loud[-1] + 1) * _HOP_S, len(samples) / rate_hz))


def utterances(samples: Samples, rate_hz: int, spans: Iterable[Span] | None) -> list[tuple[int, int]]:
    """Stretches to recognise one by one, as (first, end) samples.

    Args:
        samples: float32 (samples,).
        rate_hz: their rate.
        spans: where speech was found, in seconds; None looks for it by level. Stretches over 15 s are cut at their
            quietest place.
    """
    length_s = len(samples) / rate_hz
    level = _levels(samples, rate_hz)
    wanted = _by_level(level) if spans is None else [(max(0.0, a), min(b, length_s)) for a, b in spans]
    pieces = [piece for span in wanted for piece in _cut(span, level)]
    return [(round(a * rate_hz), round(b * rate_hz)) for a, b in pieces if b - a >= _MIN_UTTERANCE_S]


def _levels(samples: Samples, rate_hz: int) -> NDArray[np.float64]:
    hop = round(_HOP_S * rate_hz)
    whole = len(samples) // hop * hop
    power = np.square(samples[:whole], dtype=np.float64).reshape(-1, hop).mean(axis=1)
    return np.asarray(np.sqrt(power), dtype=np.float64)


def _by_level(level: NDArray[np.float64]) -> list[Span]:
    """Stretches of speech with a margin of 0.1 s, split where it stays quiet for 0.3 s."""
    loud = np.flatnonzero(level > max(level.max(initial=0.0) * 10 ** (_QUIET_DB / 20), 1e-4))
    if not loud.size:
        return []
    breaks = np.flatnonzero(np.diff(loud) > _PAUSE_S / _HOP_S)
    firsts, lasts = loud[np.r_[0, breaks + 1]], loud[np.r_[breaks, len(loud) - 1]]
    return [
        (max(0.0, float(first) * _HOP_S - 0.1), min(len(level) * _HOP_S, float(last + 1) * _HOP_S + 0.1))
        for first, last in zip(firsts, lasts, strict=True)
    ]


def _cut(span: Span, level: NDArray[np.float64]) -> list[Span]:
    start, end = span
    pieces = []
    while end - start > _MAX_UTTERANCE_S:
        first = int((start + _MAX_UTTERANCE_S / 2) / _HOP_S)
        last = int((start + _MAX_UTTERANCE_S) / _HOP_S)
        quiet = first + int(np.argmin(level[first:last])) if first < len(level) else last
        pieces.append((start, quiet * _HOP_S))
        start = quiet * _HOP_S
    return [*pieces, (start, end)]
