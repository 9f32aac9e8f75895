"""Watch: looks at every decoding step of transformers' ``generate``; given to it by engines as a logits processor.

The one invariant: it changes no score.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from serving.errors import EngineFailed

if TYPE_CHECKING:
    import torch


class Watch:
    """Counts steps, tells them, and stops a network that no longer computes.

    Args:
        model: its name, for the error.
        tick: told how many tokens are decoded; may raise to stop.
    """

    def __init__(self, model: str, tick: Callable[[int], None]) -> None:
        self._model, self._tick = model, tick
        self.done = 0

    def __call__(self, input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        """Called with ``(batch, tokens)`` and ``(batch, vocabulary)`` before a token is chosen.

        Raises:
            EngineFailed: scores are no numbers.
        """
        self._tick(self.done)
        self.done += 1
        if bool(scores.isnan().any()):
            raise EngineFailed(f"{self._model}: the network's output holds no numbers")
        return scores
