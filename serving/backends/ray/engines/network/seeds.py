"""Seeds: random numbers of a request, and of libraries that know the process's generator alone; used by engines.

The one invariant: equal seeds give equal numbers on every device and whatever else the process computes meanwhile.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch

_GLOBAL: Final = threading.Lock()


def generator(seed: int) -> "torch.Generator":
    """A generator of the request's own, on the CPU, so that noise does not depend on the device."""
    import torch

    return torch.Generator("cpu").manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The process's generators (torch, numpy) start at ``seed`` inside; one thread at a time, and restored after.

    For libraries that take no generator (sampling in transformers, coqui).
    """
    import numpy as np
    import torch

    with _GLOBAL, torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        before = np.random.get_state()
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before)
