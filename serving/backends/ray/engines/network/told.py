"""Told: tells each step of a generation by transformers; given to ``generate`` as a stopping criterion by engines.

The one invariant: it never ends a generation but by what its listener raises.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class Told:
    """A stopping criterion that never stops.

    Args:
        step: called with the number of steps so far, from 1.
    """

    def __init__(self, step: Callable[[int], None]) -> None:
        self._step, self._steps = step, 0

    def __call__(self, input_ids: "torch.Tensor", scores: object, **_: Any) -> "torch.Tensor":  # noqa: ANN401
        """Tell, and go on; what ``step`` raises ends the generation."""
        import torch

        self._steps += 1
        self._step(self._steps)
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
