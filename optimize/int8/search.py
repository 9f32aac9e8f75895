"""Which layers stay in float: ranked one at a time, then found by halving; called by optimize.int8.quantize.

The method is the partial quantisation of Wu et al., "Integer quantization for deep learning inference: principles and
empirical evaluation" (arXiv 2004.09602): quantise one layer at a time, rank by what that costs, and keep the worst in
float until quality is reached. The one invariant: what is accepted was measured, as a whole, at or above the bound.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from pydantic import BaseModel, ConfigDict

GROUPS: Final = 32
"""Layers are ranked one by one up to this many, beyond it in as many runs of neighbours. The search then takes at most
this many short runs and ``1 + log2(GROUPS)`` trials of quality."""


class Trial(BaseModel):
    """One quantised file: which layers stayed in float, and what it reached."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    kept_float: tuple[str, ...]
    quality: float
    """Higher is better: dB of signal to noise, or the score that was passed in."""
    ms: float
    float_ms: float
    """Median milliseconds of this file and of the float one over the same feeds, measured in turns."""
    bytes: int

    @property
    def speedup(self) -> float:
        """How many times faster than the float file."""
        return self.float_ms / self.ms if self.ms else float("inf")


class Sensitivity(NamedTuple):
    """What the outputs' signal-to-noise ratio (dB) is when these layers alone are INT8; low is sensitive."""

    nodes: tuple[str, ...]
    snr_db: float


class Found(NamedTuple):
    """``accepted`` is None where no trial reached the bound; all trials are in the order they were made."""

    accepted: Trial | None
    trials: tuple[Trial, ...]
    sensitivity: tuple[Sensitivity, ...]


def search(
    nodes: Sequence[str],
    bound: float,
    try_without: Callable[[tuple[str, ...]], Trial],
    alone_db: Callable[[tuple[str, ...]], float],
) -> Found:
    """Keep as few of the most sensitive layers in float as reach ``bound``.

    Halving takes quality to rise with every layer that returns to float. Where it does not, more layers than needed
    may stay in float, but never is less than the bound accepted.

    Args:
        nodes: every layer that can be INT8, in the graph's order.
        bound: the least quality.
        try_without: makes and measures the file in which the given layers stay in float.
        alone_db: the signal-to-noise ratio in dB with the given layers alone in INT8.
    """
    everything = try_without(())
    if everything.quality >= bound:
        return Found(everything, (everything,), ())
    groups = neighbours(nodes, GROUPS)
    ranked = sorted((Sensitivity(group, alone_db(group)) for group in groups), key=_order)
    trials: dict[int, Trial] = {0: everything}

    def reaches(count: int) -> bool:
        chosen = {name for entry in ranked[:count] for name in entry.nodes}
        trials[count] = try_without(tuple(name for name in nodes if name in chosen))
        return trials[count].quality >= bound

    counts = range(1, len(groups))  # all of them in float would be the float file
    index = bisect_left(counts, True, key=reaches)
    accepted = trials[counts[index]] if index < len(counts) else None
    return Found(accepted, tuple(trials.values()), tuple(ranked))


def neighbours(nodes: Sequence[str], most: int) -> tuple[tuple[str, ...], ...]:
    """``nodes`` in at most ``most`` runs, whose lengths differ by one at the most."""
    count = min(most, len(nodes))
    edges = [index * len(nodes) // count for index in range(count + 1)]
    return tuple(tuple(nodes[begin:end]) for begin, end in pairwise(edges))


def _order(entry: Sensitivity) -> float:
    """To a tenth of a dB: what rounding differs by between two processors must not change the order."""
    return round(entry.snr_db, 1)
