"""BullMqQueue: jobs from a BullMQ queue on Redis, as one of its workers; an intake's source.

The one invariant: a BullMQ job is this worker's, with its lock renewed, until the mesh's job has ended; if this process
dies the lock lapses, BullMQ calls the job stalled and another worker follows the same job of the mesh.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from uuid import uuid4

from bullmq import Job, Worker
from bullmq.custom_errors import UnrecoverableError
from pydantic import JsonValue

from serving.jobs.intake.base import Delivery, answer_of, failure_of, progress_of
from serving.jobs.records import EventRecord, JobRecord
from serving.jobs.types import JobState
from serving.settings import IntakeSettings

LOCK_S: Final = 30.0
"""How long BullMQ waits for a silent worker; renewed at a quarter of it."""
MAX_STALLS: Final = 1000
"""How often a job may lose its worker: the mesh's own job goes on all the while."""
_DRAIN_S: Final = 2
_PERCENT: Final = 100


class BullMqQueue:
    """A BullMQ queue; a job's name is the job type, its data the body, or just the input.

    Args:
        settings: of the intake.
        lock_s: how long a lock holds.
    """

    holds = True
    extend_s: float | None = None  # locks are renewed here, since they outlive the acknowledgement

    def __init__(self, settings: IntakeSettings, *, lock_s: float = LOCK_S) -> None:
        self._settings = settings
        self._lock_ms = int(lock_s * 1000)
        self._worker: Worker | None = None
        self._held: dict[str, str] = {}
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def _own(self) -> Worker:
        if self._worker is None:
            raise ConnectionError("not connected")
        return self._worker

    async def open(self) -> None:
        """Connect as a worker that fetches by hand."""
        options = {"connection": self._settings.url, "autorun": False, "drainDelay": _DRAIN_S}
        options |= {"lockDuration": self._lock_ms, "stalledInterval": self._lock_ms, "maxStalledCount": MAX_STALLS}
        self._worker = Worker(self._settings.queue, None, options)
        await asyncio.wait_for(self._worker.backend.waitUntilReady(), 10)
        self._keepers = [
            asyncio.create_task(self._keep(self._lock_ms / 4000, self._renew)),
            asyncio.create_task(self._keep(self._lock_ms / 1000, self._check_stalled)),
        ]

    async def close(self) -> None:
        """Disconnect; locks that were not given back lapse."""
        worker, self._worker = self._worker, None
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self._keepers = []
        self._held.clear()
        if worker is not None:
            await worker.close(force=True)

    async def _keep(self, period_s: float, work: Any) -> None:  # noqa: ANN401  a method without arguments
        while True:
            with contextlib.suppress(Exception):  # a broker that is away, the fetching notices
                await work()
            await asyncio.sleep(period_s)

    async def _renew(self) -> None:
        if self._held:
            await self._own.backend.extendLocks(list(self._held), list(self._held.values()), self._lock_ms)

    async def _check_stalled(self) -> None:
        await self._own.backend.moveStalledJobsToWait(MAX_STALLS, self._lock_ms)

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """Jobs as BullMQ hands them out: by priority, delay and rate limit."""
        while True:
            token = uuid4().hex
            job = await self._own.getNextJob(token)
            if job is not None:
                self._held[str(job.id)] = token
                yield Delivery(
                    id=f"{job.id}:{job.timestamp}:{job.attemptsMade}",
                    body=_body(job),
                    attempt=int(job.attemptsMade or 0) + 1,
                    reply={},
                    handle=(job, token),
                )

    async def ack(self, delivery: Delivery) -> None:
        """Nothing: the job stays active at BullMQ until the result."""

    async def reject(self, delivery: Delivery, reason: str) -> None:
        """Fail it for good: BullMQ's failed set is its dead letter."""
        await self._fail(delivery, reason, final=True)

    async def release(self, delivery: Delivery) -> None:
        """Put it back, due at once and without a lost attempt; what it has become in the mesh goes on."""
        job, token = delivery.handle
        await job.moveToDelayed(round(time.time() * 1000), token)
        self._held.pop(str(job.id), None)

    async def extend(self, delivery: Delivery) -> None:
        """Nothing: locks are renewed all together."""

    async def progress(self, reply: Mapping[str, JsonValue], delivery: Delivery | None, told: EventRecord) -> None:
        """As BullMQ's progress: an object, with ``percent`` from 0 to 100 beside what the mesh tells."""
        if delivery is not None:
            percent = round(told.progress * _PERCENT, 1)
            await delivery.handle[0].updateProgress({**progress_of(told), "percent": percent})

    async def result(self, reply: Mapping[str, JsonValue], delivery: Delivery | None, record: JobRecord) -> None:
        """``completed`` with the answer as return value, or ``failed``; a retryable failure uses BullMQ's attempts."""
        if delivery is None:
            return
        if record.state is not JobState.COMPLETED:
            retryable = record.error is not None and record.error.retryable
            await self._fail(delivery, failure_of(record), final=not retryable)
            return
        job, token = delivery.handle
        await job.moveToCompleted(answer_of(record), token)
        self._held.pop(str(job.id), None)

    async def _fail(self, delivery: Delivery, reason: str, *, final: bool) -> None:
        job, token = delivery.handle
        await job.moveToFailed(UnrecoverableError(reason) if final else RuntimeError(reason), token)
        self._held.pop(str(job.id), None)

    async def waiting(self) -> int | None:
        """Jobs that wait, prioritised ones included."""
        counts = await self._own.backend.getCounts(["wait", "prioritized"])
        return sum(int(count or 0) for count in counts)


def _body(job: Job) -> bytes:
    """The job's data; without ``input`` it is the input itself, without ``type`` the job's name is the type."""
    data = job.data
    if isinstance(data, dict):
        data = {"type": job.name, **data} if "input" in data else {"type": job.name, "input": data}
    return json.dumps(data).encode()
