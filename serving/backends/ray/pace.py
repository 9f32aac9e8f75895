"""Pace: how long one request keeps a model busy, learnt from those that ended; held by whoever refuses requests.

The one invariant: what it tells is between one second and ten minutes, whatever was measured.
"""

import math
from typing import Final

_LONGEST_S: Final = 600
_MEMORY: Final = 0.8
"""Weight of the past in the running mean."""


class Pace:
    """A running mean."""

    def __init__(self) -> None:
        self._each_s = 0.0

    def measured(self, each_s: float) -> None:
        """A request kept the model busy for so long; one of several side by side for its part of the time."""
        self._each_s = _MEMORY * self._each_s + (1 - _MEMORY) * each_s if self._each_s else each_s

    def retry_after_s(self, ahead: int) -> int:
        """In how many whole seconds so many requests will have been served."""
        return min(_LONGEST_S, max(1, math.ceil(ahead * self._each_s)))
