"""Steps of a generation, told."""

import pytest
import torch

from serving.backends.ray.engines.network.told import Told
from serving.errors import Cancelled


def test_steps_are_counted_and_never_stop_a_generation() -> None:
    heard: list[int] = []
    told = Told(heard.append)
    assert not any(told(torch.zeros(4, 7), None).any() for _ in range(3))
    assert heard == [1, 2, 3]


def test_what_a_step_raises_ends_it() -> None:
    def cancel(_tokens: int) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        Told(cancel)(torch.zeros(4, 7), None)
