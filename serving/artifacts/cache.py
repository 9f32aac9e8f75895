"""LocalCache: copies of remote objects on this machine's disk; used by the store when the bytes lie in S3.

The one invariant: a copy appears whole or not at all, and is never removed while somebody uses it: users hold a
shared lock on the file, which the kernel releases when their process dies.
"""

import contextlib
import fcntl
import os
import time
from collections import deque
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Final

HOLD_S: Final = 900.0
"""How long a copy counts as used when nobody says when the use ends."""
MAX_HELD: Final = 256
"""Most copies held without an end; the oldest is let go for the next one."""
_STALE_S: Final = 3600.0
"""A download that did not end within this time was left by a process that died."""
PARTIAL: Final = ".part-"
"""In the names of files that are not whole yet."""

_use: ContextVar[list[int] | None] = ContextVar("artifacts_in_use", default=None)
_held: Final[deque[tuple[float, int]]] = deque()


@contextlib.contextmanager
def in_use() -> Iterator[None]:
    """What is taken from the cache inside, tasks started there included, stays until the end of the block."""
    locks: list[int] = []
    token = _use.set(locks)
    try:
        yield
    finally:
        _use.reset(token)
        for lock in locks:
            os.close(lock)


class LocalCache:
    """A folder of copies, bounded in bytes; several processes share it.

    Args:
        folder: made when it is needed.
        limit_bytes: how much the copies may take; what is in use stays even above it.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder
        self._limit_bytes = limit_bytes

    def take(self, key: str) -> Path | None:
        """The copy under that key, now in use and the one used last; None where there is none."""
        path = self.folder / key
        try:
            lock = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        fcntl.flock(lock, fcntl.LOCK_SH)
        if not os.fstat(lock).st_nlink:  # it was removed between the opening and the lock
            os.close(lock)
            return None
        os.utime(lock)
        _hold(lock)
        return path

    def make_room(self) -> None:
        """Remove the copies used longest ago until the rest fits, skipping those in use."""
        now, copies, total = time.time(), [], 0
        for path in self.folder.glob("??/*"):
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                if PARTIAL not in path.name:
                    copies.append((stat.st_mtime, stat.st_size, path))
                    total += stat.st_size
                elif stat.st_mtime < now - _STALE_S:
                    path.unlink()
        for _, size, path in sorted(copies):
            if total <= self._limit_bytes:
                break
            if _remove_unused(path):
                total -= size


def _hold(lock: int) -> None:
    locks = _use.get()
    if locks is not None:
        locks.append(lock)
        return
    now = time.monotonic()
    while _held and (len(_held) >= MAX_HELD or _held[0][0] < now - HOLD_S):
        os.close(_held.popleft()[1])
    _held.append((now, lock))


def _remove_unused(path: Path) -> bool:
    try:
        lock = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True
    finally:
        os.close(lock)
    return True
