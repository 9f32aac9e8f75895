"""Named memory of this machine (POSIX shared memory) that a server on it can map; used by serving.client.regions.

The one invariant: a segment's name ends with the segment or its process: closing removes it, leaving the interpreter
removes it, and after a crash the next client does, who knows by the lock which the dead process no longer holds.
"""

import contextlib
import fcntl
import mmap
import os
import secrets
import weakref
from pathlib import Path
from typing import Final, Self

FOLDER: Final = Path("/dev/shm")  # noqa: S108  where Linux shows POSIX shared memory
PREFIX: Final = "reelmesh-client-"
MAX_STALE: Final = 256
"""Names looked at in one round of tidying."""


class Segment:
    """Mapped shared memory; made by :meth:`create`."""

    def __init__(self, name: str, descriptor: int, size: int) -> None:
        self.name = name
        self.size = size
        self.memory = mmap.mmap(descriptor, size)
        self._remove = weakref.finalize(self, _remove, name, descriptor, os.getpid())

    @classmethod
    def create(cls, size: int) -> Self:
        """Make one of ``size`` bytes, all of them there.

        Raises:
            OSError: there is no such memory on this machine, or not enough of it.
        """
        name = f"{PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
        descriptor = os.open(FOLDER / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Memory that is only promised would end this process by SIGBUS when it is written to and there is none.
            os.posix_fallocate(descriptor, 0, size)
            return cls(name, descriptor, size)
        except BaseException:
            _remove(name, descriptor, os.getpid())
            raise

    def view(self, offset: int, size: int) -> memoryview:
        """``size`` bytes from ``offset``, to read and to write."""
        return memoryview(self.memory)[offset : offset + size]

    def close(self) -> None:
        """Remove the name; the memory itself goes when the last array that looks at it does."""
        self._remove()
        with contextlib.suppress(BufferError):
            self.memory.close()


def _remove(name: str, descriptor: int, owner: int) -> None:
    if os.getpid() != owner:
        return  # a fork of the owner ended
    with contextlib.suppress(OSError):
        (FOLDER / name).unlink()
    with contextlib.suppress(OSError):
        os.close(descriptor)


def stale_names() -> list[str]:
    """Segments whose process has died: nobody holds their lock."""
    try:
        names = sorted(entry.name for entry in os.scandir(FOLDER) if entry.name.startswith(PREFIX))
    except OSError:
        return []
    return [name for name in names[:MAX_STALE] if _is_stale(name)]


def remove_stale(name: str) -> None:
    """Remove a segment of :func:`stale_names`."""
    with contextlib.suppress(OSError):
        (FOLDER / name).unlink()


def _is_stale(name: str) -> bool:
    try:
        descriptor = os.open(FOLDER / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
