"""Silences the one warning that diffusers' sound autoencoder raises against itself; used for music.

The one invariant: nothing but that warning is silenced. Filters are the process's own: only for code that loads.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def old_norms() -> Iterator[None]:
    """Inside, ``AutoencoderOobleck`` may use torch's old ``weight_norm``, whose names its checkpoints carry."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.nn\.utils\.weight_norm.*", category=FutureWarning)
        yield
