"""Progress: how far a fetch is, told to whoever waits, in this process or another; used by cache, download and cli.

The one invariant: it is told at most a few times a second, and what others read of it is never half written.
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

_PERIOD_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the fetch of one model is.

    Args:
        model: its name.
        done_bytes: of these, here; bytes of an earlier try included.
        total_bytes: of all files.
        pid: the process that fetches, which may be another one.
    """

    model: str
    done_bytes: int
    total_bytes: int
    pid: int


Told = Callable[[Progress], None]
_PROGRESS: Final = TypeAdapter(Progress)


class Meter:
    """Counts bytes from several threads and tells of them.

    Args:
        model: name of the model.
        note: file in which other processes read how far this one is; None where nobody waits.
        told: called with every progress; from any thread, one at a time.
    """

    def __init__(self, model: str, note: Path | None, told: Told | None) -> None:
        self._model, self._note, self._told = model, note, told
        self._lock = threading.Lock()
        self._done = self._total = 0
        self._next_s = 0.0

    def begin(self, done_bytes: int, total_bytes: int) -> None:
        """What is there already, of how much."""
        with self._lock:
            self._done, self._total = done_bytes, total_bytes
            self._tell()

    def add(self, size_bytes: int) -> None:
        """Bytes that came; negative for bytes that were thrown away."""
        with self._lock:
            self._done += size_bytes
            if time.monotonic() >= self._next_s or self._done == self._total:
                self._tell()

    def _tell(self) -> None:
        self._next_s = time.monotonic() + _PERIOD_S
        now = Progress(self._model, self._done, self._total, os.getpid())
        if self._note is not None:
            _write(self._note, now)
        if self._told is not None:
            self._told(now)


def _write(note: Path, now: Progress) -> None:
    temporary = note.with_suffix(".new")
    try:
        temporary.write_bytes(_PROGRESS.dump_json(now))
        temporary.replace(note)
    except OSError:
        temporary.unlink(missing_ok=True)  # a full disk is found out by the download itself


def read_note(note: Path) -> Progress | None:
    """What another process told last; None where there is nothing to read."""
    try:
        return _PROGRESS.validate_json(note.read_bytes())
    except (OSError, ValidationError):
        return None


def words(progress: Progress | None) -> str:
    """``process 7 has 12 of 99 bytes``."""
    if progress is None:
        return "it has just begun"
    told = asdict(progress)
    return "process {pid} has {done_bytes} of {total_bytes} bytes".format(**told)
