"""How a sound of any length is cut for a network that hears 30 seconds at a time; used by the Whisper engines.

The one invariant: windows are in order, do not overlap, hold everything that is to be heard, and none is longer than
the network's own.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RATE_HZ: Final = 16_000
WINDOW_S: Final = 30.0
JOINED_S: Final = 2.0
"""Longest pause between spans that share a window; a pass takes as long for a short window as for a full one."""
_EARLIEST_S: Final = 20.0
"""A cut is made at the quietest place after this."""
_QUIET_S: Final = 0.2
_HOP_S: Final = 0.02
_SHORTEST_S: Final = 0.1
_SILENT: Final = 32
"""Peak below which 16-bit samples are digital silence, -60 dB: no network is asked what is said in it."""


class Window(NamedTuple):
    """A stretch of the sound: where it begins, in seconds, and its int16 samples, silent where nothing is asked for."""

    start_s: float
    samples: "NDArray[np.int16]"

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.samples) / RATE_HZ


def windows(samples: "NDArray[np.float32]", spans: Sequence[tuple[float, float]] | None = None) -> list[Window]:
    """Cut a sound.

    Args:
        samples: float32 ``(samples,)``, -1 to 1, at :data:`RATE_HZ`.
        spans: start and end in seconds of what is to be heard, in any order; None hears all of it.

    Returns:
        Windows of 0.1 to 30 s; silent ones are left out.
    """
    import numpy as np

    whole = np.round(samples * 32767).astype(np.int16)
    stretches = [(0, len(whole))] if spans is None else _merged(spans, len(whole))
    parts = [part for start, end in stretches for part in _cut(whole, start, end)]
    found = [_window(whole, group) for group in _joined(parts)]
    return [window for window in found if np.abs(window.samples.astype(np.int32)).max() >= _SILENT]


def _merged(spans: Sequence[tuple[float, float]], length: int) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start_s, end_s in sorted(spans):
        start, end = round(start_s * RATE_HZ), min(length, round(end_s * RATE_HZ))
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif start < end:
            merged.append((start, end))
    return merged


def _cut(samples: "NDArray[np.int16]", start: int, end: int) -> list[tuple[int, int]]:
    """A stretch in pieces that fit, cut where it is quietest."""
    parts = []
    while end - start > WINDOW_S * RATE_HZ:
        earliest = start + round(_EARLIEST_S * RATE_HZ)
        cut = earliest + _quietest(samples[earliest : start + round(WINDOW_S * RATE_HZ)])
        parts.append((start, cut))
        start = cut
    return [*parts, (start, end)] if end - start >= _SHORTEST_S * RATE_HZ else parts


def _quietest(samples: "NDArray[np.int16]") -> int:
    """The middle of the quietest moment."""
    import numpy as np

    hop, wide = round(_HOP_S * RATE_HZ), round(_QUIET_S / _HOP_S)
    hops = samples[: len(samples) // hop * hop].reshape(-1, hop)
    energy = np.square(hops.astype(np.float64)).sum(axis=1)
    moments = np.convolve(energy, np.ones(wide), "valid")
    return int(np.argmin(moments)) * hop + wide * hop // 2


def _joined(parts: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    groups: list[list[tuple[int, int]]] = []
    for start, end in parts:
        near = bool(groups) and start - groups[-1][-1][1] <= JOINED_S * RATE_HZ
        if near and end - groups[-1][0][0] <= WINDOW_S * RATE_HZ:
            groups[-1].append((start, end))
        else:
            groups.append([(start, end)])
    return groups


def _window(samples: "NDArray[np.int16]", group: Sequence[tuple[int, int]]) -> Window:
    """One window, with silence between its spans."""
    import numpy as np

    first, last = group[0][0], group[-1][1]
    heard = np.zeros(last - first, np.int16)
    for start, end in group:
        heard[start - first : end - first] = samples[start:end]
    return Window(first / RATE_HZ, heard)
