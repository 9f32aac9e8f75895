"""The timing cache on disk: what TensorRT measured of kernels, kept for the next build; used by build.

The one invariant: one file per compute capability and version of TensorRT, replaced by one rename under a lock, so that
builds side by side lose nothing of one another.
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from optimize.tensorrt.flags import Target

Merge = Callable[[bytes, bytes], bytes]
"""Of a cache from disk and a newer one; TensorRT's own combine."""


class TimingCache:
    """A file in a folder.

    Args:
        folder: is made where it is missing.
        target: whose measurements these are.
    """

    def __init__(self, folder: Path, target: Target) -> None:
        version = ".".join(target.tensorrt.split(".")[:4])
        self.file = folder / f"timing-sm{target.capability.replace('.', '')}-trt{version}.cache"

    def read(self) -> bytes:
        """Its bytes; none where there is no file yet, from which TensorRT makes an empty cache."""
        try:
            return self.file.read_bytes()
        except FileNotFoundError:
            return b""

    def write(self, found: bytes, before: bytes, merge: Merge) -> None:
        """Keep a cache, together with what others have written since it was read.

        Args:
            found: of the build.
            before: what :meth:`read` gave it.
            merge: joins two caches.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.with_suffix(".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            there = self.read()
            joined = found if there in (b"", before) else merge(there, found)
            if joined != there:
                part = self.file.with_name(f".{self.file.name}.{os.getpid()}")
                part.write_bytes(joined)
                part.replace(self.file)
