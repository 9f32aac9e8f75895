"""Reads a checkpoint's files ahead, so that the disk works while modules are built; used when a network is loaded.

The one invariant: it changes nothing but the page cache, and a file that cannot be opened is left to whoever loads it.
"""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

AHEAD_SHARE: Final = 0.5
"""Part of the machine's free memory that pages read ahead may take."""
_PIECE_BYTES: Final = 8 << 20


def read_ahead(files: Sequence[Path]) -> threading.Thread:
    """Start reading files into the page cache, largest first, in a thread of its own.

    Advice alone (``POSIX_FADV_WILLNEED``) reads no more than the device's window; a thread reads all, without holding
    the interpreter.

    Args:
        files: that will be loaded; what else lies in their folder stays where it is.

    Returns:
        The thread; nobody needs to wait for it.
    """
    thread = threading.Thread(target=_read, args=(list(files),), name="read-ahead", daemon=True)
    thread.start()
    return thread


def _read(paths: Sequence[Path]) -> None:
    import psutil

    left = int(AHEAD_SHARE * psutil.virtual_memory().available)
    files = [path for path in paths if path.is_file()]
    buffer = bytearray(_PIECE_BYTES)
    for path in sorted(files, key=lambda path: -path.stat().st_size):
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        try:
            offset = 0
            while left > 0 and (got := os.preadv(descriptor, [buffer], offset)):
                offset += got
                left -= got
        except OSError:
            continue
        finally:
            os.close(descriptor)
