"""Medium random-weight checkpoints and how fast they load; measured by bench.engines.

The one invariant: files are read and loaded from the page cache, in turns, so that the disk plays no part.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

ROUNDS: Final = 5
_MIB: Final = 1 << 20


class Load(NamedTuple):
    """One checkpoint.

    Args:
        model: of the repository, whose engine loads it.
        make: writes it into a folder.
        load: loads it as the engine does.
    """

    model: str
    make: Callable[[Path], None]
    load: Callable[[Path], Any]

    def measure(self, home: Path) -> tuple[float, float, float]:
        """Size in MiB, and medians in milliseconds of reading the files and of loading them."""
        folder = home / self.model
        folder.mkdir(parents=True)
        self.make(folder)
        files = sorted(folder.rglob("*.safetensors"))
        reads, loads = [], []
        for number in range(ROUNDS + 1):
            began = time.perf_counter()
            for file in files:
                file.read_bytes()
            middle = time.perf_counter()
            self.load(folder)
            if number:
                reads.append(1000 * (middle - began))
                loads.append(1000 * (time.perf_counter() - middle))
        size = sum(file.stat().st_size for file in files)
        return size / _MIB, statistics.median(reads), statistics.median(loads)


LOADS: Final[tuple[Load, ...]] = ()
