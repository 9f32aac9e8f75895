"""Membership: which workers live, so that a dead one's jobs are taken over; used by the worker.

The one invariant: a worker on this machine is alive exactly as long as it holds the lock on its file, which
the kernel releases when the process dies in whatever way; a worker elsewhere is alive while its row is seen to change,
whatever its clock says, and one without a row is none.
"""

import asyncio
import fcntl
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar

import sqlalchemy as sa

from serving.jobs.database import Database
from serving.jobs.queue import executors
from serving.jobs.states import WORKING
from serving.jobs.tables import jobs, workers

T = TypeVar("T")

SILENT_S: Final = 10.0
"""A worker elsewhere that was seen silent for this long is dead; with a beat of 2 s, its jobs go on within 15 s."""


def new_worker_id() -> str:
    """Host, process and chance: no two runs of a worker share an id."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


class Membership:
    """One worker among the others.

    Args:
        database: opened, with its tables made.
        worker: this worker's id.
        folder: for the lock files of this machine's workers.
        silent_s: how long a worker elsewhere may be seen silent before it counts as dead.
    """

    def __init__(self, database: Database, worker: str, folder: Path, *, silent_s: float = SILENT_S) -> None:
        self._database = database
        self._worker = worker
        self._folder = folder
        self._silent_s = silent_s
        self._lock: int | None = None
        self._looked_at: float | None = None
        self._silence: dict[str, tuple[float, float]] = {}

    async def join(self) -> None:
        """Take the lock and write the row."""
        self._lock = await asyncio.to_thread(self._take_lock)
        await self.beat()

    async def beat(self) -> None:
        """Say that this worker lives; one that was given up for dead, though it lived, joins again."""
        row = {"host": socket.gethostname(), "seen_at": time.time()}

        def write(connection: sa.Connection) -> None:
            if not connection.execute(sa.update(workers).where(workers.c.id == self._worker).values(**row)).rowcount:
                connection.execute(sa.insert(workers).values(id=self._worker, **row))

        await self._looking(write)

    async def dead(self) -> list[str]:
        """Workers that no longer live and were not forgotten yet, and those without a row that still own jobs."""
        query = sa.select(workers.c.id, workers.c.seen_at).where(workers.c.id != self._worker)

        rows, strangers = await self._looking(
            lambda connection: (connection.execute(query).all(), strangers_of(connection))
        )
        self._listen({row.id: row.seen_at for row in rows})
        silent = await asyncio.to_thread(lambda: [row.id for row in rows if not self._lives(row.id)])
        return [*silent, *sorted(strangers - {self._worker})]

    async def _looking(self, work: Callable[[sa.Connection], T]) -> T:
        """Run ``work``; where that fails nobody could be heard, so that nobody's silence counts."""
        try:
            return await self._database.run(work)
        except BaseException:
            self._looked_at, self._silence = None, {}
            raise

    def _listen(self, heard: Mapping[str, float]) -> None:
        """Add what passed since the last look to the silence of those whose row did not change.

        A worker that itself stood still (a suspended machine) heard nothing meanwhile: one look counts at most half
        of what makes a worker dead.
        """
        now, before = time.monotonic(), self._silence
        passed = 0.0 if self._looked_at is None else min(now - self._looked_at, self._silent_s / 2)
        self._looked_at = now
        self._silence = {}
        for worker, seen_at in heard.items():
            last, silent_s = before.get(worker, (None, 0.0))
            self._silence[worker] = (seen_at, silent_s + passed if last == seen_at else 0.0)

    async def forget(self, worker: str) -> None:
        """Remove a dead worker, once its jobs were taken over."""
        gone = sa.delete(workers).where(workers.c.id == worker)
        await self._database.run(lambda connection: connection.execute(gone))
        self._lock_file(worker).unlink(missing_ok=True)

    async def leave(self) -> None:
        """Release the lock; the row stays until a worker has looked after what this one left unfinished."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _lock_file(self, worker: str) -> Path:
        return self._folder / f"{worker}.lock"

    def _take_lock(self) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._lock_file(self._worker), os.O_CREAT | os.O_RDWR, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor

    def _lives(self, worker: str) -> bool:
        try:
            descriptor = os.open(self._lock_file(worker), os.O_RDWR)
        except FileNotFoundError:
            return self._silence[worker][1] < self._silent_s
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


def strangers_of(connection: sa.Connection) -> set[str]:
    """Workers without a row that own jobs: they were forgotten, lived on and took jobs up before they died."""
    owners = sa.select(jobs.c.worker).where(
        jobs.c.state.in_(list(WORKING)), jobs.c.worker.is_not(None), jobs.c.worker.not_in(sa.select(workers.c.id))
    )
    return set(connection.scalars(owners.distinct())) | executors(connection)
