"""Random numbers: equal seeds, equal numbers; the process's generators are lent to one thread at a time."""

import threading

import numpy as np
import pytest
import torch

from serving.backends.ray.engines.network.seeds import generator, seeded
from serving.errors import Cancelled


def test_equal_seeds_give_equal_noise() -> None:
    first, again, other = (torch.randn(4, generator=generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_processs_generators_start_at_the_seed_and_go_on_as_before_afterwards() -> None:
    torch.manual_seed(9)
    np.random.seed(9)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(9)
    np.random.seed(9)
    with seeded(3):
        inside = torch.rand(1), np.random.rand()
    assert (torch.rand(1), np.random.rand()) == expected
    with seeded(3):
        assert (torch.rand(1), np.random.rand()) == inside


def test_who_waits_for_them_may_give_up() -> None:
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with seeded(1):
            held.set()
            free.wait(20)

    def give_up() -> None:
        raise Cancelled("nobody waits any more")

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(20)
        with pytest.raises(Cancelled), seeded(2, give_up):
            pytest.fail("they are another thread's")
    finally:
        free.set()
        holder.join(20)
    with seeded(2):
        pass
