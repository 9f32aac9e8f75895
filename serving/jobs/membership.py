"""Membership: which workers live, so that a dead one's jobs are taken over; used by the worker.

The one invariant: a worker on this machine is alive exactly as long as it holds the lock on its file, which
the kernel releases when the process dies in whatever way; a worker elsewhere is alive while its row is fresh.
"""

import asyncio
import fcntl
import os
import secrets
import socket
import time
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from serving.jobs.database import Database
from serving.jobs.tables import workers

SILENT_S: Final = 10.0
"""A worker elsewhere that was silent for this long is dead; with a beat of 2 s, its jobs move within 15 s."""


def new_worker_id() -> str:
    """Host, process and chance: no two runs of a worker share an id."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


class Membership:
    """One worker among the others.

    Args:
        database: opened, with its tables made.
        worker: this worker's id.
        folder: for the lock files of this machine's workers.
        silent_s: how long a worker elsewhere may be silent before it counts as dead.
    """

    def __init__(self, database: Database, worker: str, folder: Path, *, silent_s: float = SILENT_S) -> None:
        self._database = database
        self._worker = worker
        self._folder = folder
        self._silent_s = silent_s
        self._lock: int | None = None

    async def join(self) -> None:
        """Take the lock and write the row."""
        self._lock = await asyncio.to_thread(self._take_lock)
        row = {"id": self._worker, "host": socket.gethostname(), "seen_at": time.time()}
        await self._database.run(lambda connection: connection.execute(sa.insert(workers).values(**row)))

    async def beat(self) -> None:
        """Say that this worker lives."""
        mine = sa.update(workers).where(workers.c.id == self._worker).values(seen_at=time.time())
        await self._database.run(lambda connection: connection.execute(mine))

    async def dead(self) -> list[str]:
        """Workers that no longer live and were not forgotten yet."""
        query = sa.select(workers.c.id, workers.c.seen_at).where(workers.c.id != self._worker)
        rows = await self._database.run(lambda connection: connection.execute(query).all())
        return await asyncio.to_thread(lambda: [row.id for row in rows if not self._lives(row.id, row.seen_at)])

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

    def _lives(self, worker: str, seen_at: float) -> bool:
        try:
            descriptor = os.open(self._lock_file(worker), os.O_RDWR)
        except FileNotFoundError:
            return time.time() - seen_at < self._silent_s
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False
