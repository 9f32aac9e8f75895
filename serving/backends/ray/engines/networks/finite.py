"""Refuses what a network of ours computed if it is no number; used by the engines that run one.

The one invariant: NaN and infinity never become a frame, a coefficient or a score.
"""

import torch

from serving.errors import EngineFailed


def check_finite(values: torch.Tensor, model: str) -> torch.Tensor:
    """The values, on whatever device they are.

    Args:
        values: of any shape and floating type.
        model: its name, for the error.

    Raises:
        EngineFailed: some are no numbers.
    """
    if not bool(values.isfinite().all()):
        fix = "check the weights; with fp16 try bf16 or fp32"
        raise EngineFailed(f"{model}: the network's output holds no numbers", fix=fix)
    return values
