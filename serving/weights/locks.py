"""Locks of the kernel on files of the weights cache: one process fetches, many use; taken by cache and snapshots.

The one invariant: a lock ends with the process that holds it, however that ends, so nothing has to be cleaned up.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from serving.errors import Unavailable

_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 1.0


@contextlib.contextmanager
def fetching(path: Path, wait_s: float, waiting: Callable[[], str]) -> Iterator[None]:
    """Be the only one who fetches, for the block.

    Args:
        path: the lock's file; made, and never removed, since a lock on a removed file excludes nobody.
        wait_s: how long to wait for another.
        waiting: called while waiting; says in a few words how far the other one is.

    Raises:
        Unavailable: the other one was not done in time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline, pause_s = time.monotonic() + wait_s, _FIRST_PAUSE_S
        while not _taken(lock):
            told = waiting()
            if time.monotonic() >= deadline:
                fix = "wait for it, or raise weights.wait_s"
                raise Unavailable(f"another process fetches the same weights ({told})", field=str(path), fix=fix)
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        yield
    finally:
        os.close(lock)


def used(path: Path) -> int | None:
    """A descriptor that marks a file as in use until it is closed; None if the file is gone."""
    try:
        lock = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    fcntl.flock(lock, fcntl.LOCK_SH)
    if _moved(lock, path):  # removed between the opening and the lock
        os.close(lock)
        return None
    return lock


def unused(path: Path) -> int | None:
    """A descriptor that keeps others from using a file until it is closed; None if one uses it, or it is gone."""
    try:
        lock = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if _taken(lock) and not _moved(lock, path):
        return lock
    os.close(lock)
    return None


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _moved(lock: int, path: Path) -> bool:
    try:
        there, held = path.stat(), os.fstat(lock)
    except (FileNotFoundError, NotADirectoryError):
        return True
    return (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino)
