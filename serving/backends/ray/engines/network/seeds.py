"""Seeds: random numbers of a request, and of libraries that know the process's generator alone; used by engines.

The one invariant: equal seeds give equal numbers on every device and whatever else the process computes meanwhile.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch

_GLOBAL: Final = threading.Lock()
_PERIOD_S: Final = 0.2


def generator(seed: int) -> "torch.Generator":
    """A generator of the request's own, on the CPU, so that noise does not depend on the device."""
    import torch

    return torch.Generator("cpu").manual_seed(seed)


@contextmanager
def _global(waits: Callable[[], None] | None) -> Iterator[None]:
    while not _GLOBAL.acquire(timeout=_PERIOD_S):
        if waits is not None:
            waits()
    try:
        yield
    finally:
        _GLOBAL.release()


@contextmanager
def seeded(seed: int, waits: Callable[[], None] | None = None) -> Iterator[None]:
    """The process's generators (torch, numpy) start at ``seed`` inside; one thread at a time, and restored after.

    For libraries that take no generator (sampling in coqui).

    Args:
        seed: where they start.
        waits: called a few times a second while another thread has them; what it raises is let through.
    """
    import numpy as np
    import torch

    with _global(waits), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        before = np.random.get_state()
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before)
