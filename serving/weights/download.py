"""Fetching the files of a source into a folder: in parallel, resumed where an earlier try stopped; used by the cache.

The one invariant: a file has its own name only once its size and digest were checked; until then it ends in ``.part``.
"""

import contextlib
import errno
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from serving.errors import BadInput, DeadlineExceeded, ReelmeshError, Unavailable
from serving.settings import WeightsSettings
from serving.weights.contents import HEAD_BYTES, pickle_by_head
from serving.weights.manifest import Entry, digests
from serving.weights.progress import Meter
from serving.weights.remote import Listing, Remote, RemoteFile
from serving.weights.selection import matches, pickle_refused

PART: Final = ".part"
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the kernel says when there is no room: on the disk, in the quota, for a file of this size."""
_LONGEST_PAUSE_S: Final = 60.0


@dataclass(frozen=True)
class Download:
    """One fetch of one model.

    Args:
        remote: where the files come from.
        uri: for messages.
        folder: where they go.
        settings: tries, times, how many at a time.
        allow_pickles: names of files that may be pickles.
        meter: counts what comes.
        deadline_s: of the monotonic clock.
        stop: set when one file failed, so that the others stop too.
    """

    remote: Remote
    uri: str
    folder: Path
    settings: WeightsSettings
    allow_pickles: Sequence[str]
    meter: Meter
    deadline_s: float
    stop: threading.Event = field(default_factory=threading.Event)

    def fetch(self, files: Sequence[RemoteFile]) -> tuple[Entry, ...]:
        """Fetch all files; entries in the order of ``files``.

        Raises:
            Unavailable: the source did not answer, or cut off, as often as ``tries``.
            DeadlineExceeded: ``pull_s`` passed.
            BadInput: a file is a pickle that is not allowed, or not the one that the source listed.
            OSError: the disk is full, or cannot be written.
        """
        self.meter.begin(sum(here(self.folder, file) for file in files), sum(file.size_bytes for file in files))
        with ThreadPoolExecutor(self.settings.parallel, "weights") as threads:
            futures = [threads.submit(self._guarded, file) for file in files]
            try:
                wait(futures)
            except BaseException:  # Ctrl-C: what came so far is kept for the next pull
                self.stop.set()
                raise
        found = [future.exception() for future in futures]
        first = next((error for error in found if error is not None and not isinstance(error, _Stopped)), None)
        if first is not None:
            raise first
        return tuple(future.result() for future in futures)

    def _guarded(self, file: RemoteFile) -> Entry:
        try:
            return self._file(file)
        except BaseException:
            self.stop.set()
            raise

    def _file(self, file: RemoteFile) -> Entry:
        target = self.folder / file.name
        part = target.with_name(target.name + PART)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():  # of an earlier try, which ended between this file and the last one
            target.replace(part)
        failures = 0
        while True:
            before = _size(part)
            try:
                self._append(file, part)
                entry = self._verified(file, part)
            except Unavailable as error:
                failures = 1 if _size(part) > before else failures + 1
                if failures >= self.settings.tries:
                    raise
                self._pause(failures, error)
            else:
                part.replace(target)
                return entry

    def _append(self, file: RemoteFile, part: Path) -> None:
        """Continue where the partial file ends."""
        have = _size(part)
        if have > file.size_bytes:
            part.unlink()
            self.meter.add(-have)
            have = 0
        if have == file.size_bytes and have:
            return
        with self.remote.open(file, have) as (offset, pieces), part.open("ab") as stream:
            if offset != have:
                stream.truncate(offset)
                self.meter.add(offset - have)
                have = offset
            for piece in pieces:
                self._check()
                self._look(file, piece, have)
                if have + len(piece) > file.size_bytes:
                    raise BadInput(
                        f"{self.uri}: {file.name} has more than the {file.size_bytes} bytes listed",
                        field="source.uri",
                        fix="pull again; if it stays so, ask who keeps the source",
                    )
                stream.write(piece)
                have += len(piece)
                self.meter.add(len(piece))
            stream.flush()
            os.fsync(stream.fileno())
        if have < file.size_bytes:
            raise Unavailable(f"{self.uri}: {file.name} was cut off after {have} of {file.size_bytes} bytes")

    def _look(self, file: RemoteFile, piece: bytes, offset: int) -> None:
        """A bare pickle is refused at its first bytes, not after gigabytes."""
        allowed = matches(file.name, self.allow_pickles)
        if offset == 0 and not allowed and pickle_by_head(piece[:HEAD_BYTES], file.name):
            raise pickle_refused(self.uri, file.name)

    def _verified(self, file: RemoteFile, part: Path) -> Entry:
        sha256, other = digests(part, file.digest, self._check)
        if file.digest is not None and other != file.digest.value:
            size = _size(part)
            part.unlink()
            self.meter.add(-size)
            raise Unavailable(
                f"{self.uri}: {file.name} arrived damaged: its {file.digest.algorithm} is {other}, not "
                f"{file.digest.value}",
                fix="pull again; if it stays so, ask who keeps the source",
            )
        return Entry(name=file.name, size_bytes=file.size_bytes, sha256=sha256)

    def _check(self) -> None:
        if self.stop.is_set():
            raise _Stopped("another file failed")
        if time.monotonic() > self.deadline_s:
            problem = f"{self.uri} was not here within {self.settings.pull_s:g} s; what came is kept"
            raise DeadlineExceeded(problem, field="weights.pull_s", fix="pull again, it goes on there; or raise it")

    def _pause(self, failures: int, error: ReelmeshError) -> None:
        """Wait before the next try, unless the fetch ends first."""
        wait_s = pause_s(self.settings, failures - 1)
        left_s = self.deadline_s - time.monotonic()
        if left_s <= 0:
            self._check()
        if wait_s >= left_s:
            raise error
        self.stop.wait(wait_s)
        self._check()


def listed(remote: Remote, settings: WeightsSettings) -> Listing:
    """What a remote lists, asked as often as the settings allow; raises what it raises the last time."""
    for tried in range(settings.tries - 1):
        try:
            return remote.listing()
        except Unavailable:
            time.sleep(pause_s(settings, tried))
    return remote.listing()


def pause_s(settings: WeightsSettings, failures: int) -> float:
    """How long to wait after the failure of that number, from 0."""
    return min(settings.retry_s * 2.0 ** min(failures, 16), _LONGEST_PAUSE_S)


class _Stopped(Exception):
    """Another file's failure ended this one's fetch."""


def here(folder: Path, file: RemoteFile) -> int:
    """Bytes of a file that an earlier try left."""
    target = folder / file.name
    return min(_size(target) or _size(target.with_name(target.name + PART)), file.size_bytes)


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def disk_full(folder: Path, uri: str, needed_bytes: int) -> Unavailable:
    """The one line about a full disk.

    Args:
        folder: on the disk that is full.
        uri: what was fetched.
        needed_bytes: of it, at least.
    """
    return Unavailable(
        f"no room for {uri}: it needs {needed_bytes} bytes more on the disk of {folder}",
        field="weights.folder",
        fix="free some with `reelmesh models gc`, or set weights.folder to a larger disk",
    )
