"""The home folder belongs to one mesh at a time; taken by cli.mesh before anything starts.

The one invariant: the lock is the kernel's, so it ends with the process that holds it, however that ends.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from serving.errors import BadInput, Unavailable, foreign_text

LOCK: Final = "mesh.lock"


@contextlib.contextmanager
def taken_home(home: Path) -> Iterator[None]:
    """Make the folder if need be and hold it for the block.

    Raises:
        Unavailable: another mesh holds it.
        BadInput: it cannot be made or written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(home / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        problem = foreign_text(error.strerror or error)
        raise BadInput(f"{home}: {problem}", field="home", fix="name a folder you may write to with --home") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        fix = "submit jobs to it (`reelmesh submit`), stop it, or give this one a folder of its own with --home"
        raise Unavailable(f"a mesh is already running on {home}", field="home", fix=fix) from None
    try:
        yield
    finally:
        os.close(descriptor)
