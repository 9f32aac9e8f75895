"""Every decoding step is told, and a network that no longer computes is stopped."""

import pytest
import torch

from serving.backends.ray.engines.network.decoding import Watch
from serving.errors import Cancelled, EngineFailed

IDS = torch.zeros(1, 1, dtype=torch.long)


def test_steps_are_told_and_scores_stay_as_they_are() -> None:
    told: list[int] = []
    watch = Watch("toy", told.append)
    scores = torch.tensor([[0.0, -torch.inf, 1.0]])
    assert all(watch(IDS, scores) is scores for _ in range(3))
    assert told == [0, 1, 2]


def test_scores_that_are_no_numbers_end_it() -> None:
    with pytest.raises(EngineFailed, match="toy: the network's output holds no numbers"):
        Watch("toy", lambda _: None)(IDS, torch.tensor([[0.0, torch.nan]]))


def test_whoever_listens_may_end_it() -> None:
    def gone(_: int) -> None:
        raise Cancelled("nobody waits")

    with pytest.raises(Cancelled):
        Watch("toy", gone)(IDS, torch.zeros(1, 2))
