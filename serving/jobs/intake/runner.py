"""Intake: turns the messages of one source into jobs and gives their results back; run by the gateway.

The one invariant: a message is acknowledged only after its job is in the database, and the same message makes the same
job however often it is delivered.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from typing import Final, Protocol

import sqlalchemy as sa
import structlog

from serving import telemetry
from serving.errors import NotFound, ReelmeshError, foreign_text
from serving.jobs.intake.base import Delivery, Source, message_id_of, request_of, source_of
from serving.jobs.intake.replies import HeldReplies, Owed, Replies
from serving.jobs.records import JobRecord
from serving.jobs.store import JobStore
from serving.jobs.submit import JobRequest

log = structlog.get_logger()

POLL_S: Final = 0.5
"""How often the database is asked for news of jobs whose producers wait."""
_WATCH_S: Final = 5.0
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0
_STEADY_S: Final = 10.0
"""A connection that held this long was a good one: the next loss is waited for briefly."""
_FULL_PAUSE_S: Final = 0.5
_LONGEST_FULL_PAUSE_S: Final = 10.0
_GIVE_BACK_S: Final = 3.0
"""How long giving messages back may take on a stop."""


class Desk(Protocol):
    """Where jobs are handed in: :class:`serving.jobs.submit.JobDesk`."""

    async def submit(self, request: JobRequest, *, tenant: str, source: str, message_id: str) -> tuple[JobRecord, bool]:
        """The job of that message, and whether it is new."""


class Intake:
    """One queue.

    Args:
        source: the queue at its broker.
        desk: takes jobs in.
        store: tells of them.
        replies: where owed answers are kept: rows, or memory for a source that holds.
        name: in logs, metrics and the jobs' ``source``.
        tenant: whose jobs they are.
        prefetch: messages held at a time that are no jobs yet; for a source that holds, whose jobs have not ended.
        most_bytes: largest message.
        poll_s: how often answers are looked for.
        first_pause_s: how long the first try to reconnect waits; doubled up to half a minute.
    """

    def __init__(
        self,
        source: Source,
        desk: Desk,
        store: JobStore,
        replies: Replies,
        *,
        name: str,
        tenant: str,
        prefetch: int,
        most_bytes: int,
        poll_s: float = POLL_S,
        first_pause_s: float = _FIRST_PAUSE_S,
    ) -> None:
        self._source = source
        self._desk = desk
        self._store = store
        self._replies = replies
        self.name = name
        self._source_name = source_of(name)
        self._tenant = tenant
        self._prefetch = prefetch
        self._most_bytes = most_bytes
        self._poll_s = poll_s
        self._first_pause_s = first_pause_s
        self._slots = asyncio.Semaphore(prefetch)
        self._open: dict[int, Delivery] = {}
        self._task: asyncio.Task[None] | None = None
        # Beside the cancel, which client libraries may take for a lost connection and swallow.
        self._serving = False

    def start(self) -> None:
        """Begin, in a task of its own; a broker that is away is waited for."""
        self._task = asyncio.create_task(self._run(), name=f"intake-{self.name}")

    async def stop(self) -> None:
        """Take nothing more, give back what is no job yet, disconnect. Safe to call twice."""
        task, self._task = self._task, None
        while task is not None and not task.done():
            # Again, since a client library may take a cancel for a lost connection and go on.
            task.cancel()
            await asyncio.wait({task}, timeout=3 * _GIVE_BACK_S)

    def check(self) -> None:
        """Raise once the intake has ended by itself, which it never should."""
        if self._task is not None and self._task.done():
            raise ReelmeshError(f"the intake {self.name} ended")

    async def _run(self) -> None:
        connected = telemetry.INTAKE_CONNECTED.labels(self.name)
        pause_s = self._first_pause_s
        while self._task is not None:
            connected.set(0)
            began = time.monotonic()
            try:
                await self._source.open()
                connected.set(1)
                log.info("intake_connected", intake=self.name)
                await self._serve()
            except asyncio.CancelledError:
                connected.set(0)
                await self._give_back()
                raise
            except Exception as error:
                # Client libraries raise all kinds of errors when a broker goes away; whatever it was, the way on is
                # the same: a new connection.
                log.warning("intake_lost", intake=self.name, error=_cause(error), retry_in_s=round(pause_s, 1))
            await self._close()
            if time.monotonic() - began > _STEADY_S:
                pause_s = self._first_pause_s
            await asyncio.sleep(pause_s * random.uniform(0.7, 1.0))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _serve(self) -> None:
        """Until something fails, or the task is cancelled."""
        self._slots = asyncio.Semaphore(self._prefetch)
        self._open.clear()
        self._serving = True
        async with asyncio.TaskGroup() as group:
            group.create_task(self._answer())
            group.create_task(self._watch())
            iterator = self._source.deliveries()
            try:
                while self._task is not None:
                    await self._slots.acquire()
                    delivery = await anext(iterator)
                    self._open[id(delivery)] = delivery
                    group.create_task(self._take(delivery))
            finally:
                self._serving = False
                await _end(iterator)

    async def _close(self) -> None:
        if isinstance(self._replies, HeldReplies):
            self._replies.clear()
        with contextlib.suppress(Exception):  # the connection is gone, so that closing it may fail in any way
            await asyncio.wait_for(self._source.close(), _GIVE_BACK_S)

    async def _give_back(self) -> None:
        held = self._replies.clear() if isinstance(self._replies, HeldReplies) else []
        waiting = [*self._open.values(), *held]
        # A stop must not hang or fail on a broker that is away: what is not given back comes again by itself.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_GIVE_BACK_S):
                for delivery in waiting:
                    await self._source.release(delivery)
        await self._close()

    async def _take(self, delivery: Delivery) -> None:
        keeper = asyncio.create_task(self._extend(delivery))
        try:
            await self._settle(delivery)
        finally:
            keeper.cancel()
        self._open.pop(id(delivery), None)

    async def _settle(self, delivery: Delivery) -> None:
        """Make the message a job, or a dead letter."""
        count = telemetry.INTAKE_MESSAGES
        try:
            record, created = await self._submit(delivery)
        except ReelmeshError as error:
            reason = str(error)
        except Exception as error:
            # A message that breaks the mesh would come again for ever; where it is put, a person sees it.
            log.exception("intake_failed", intake=self.name)
            reason = f"the mesh failed on it: {type(error).__name__}"
        else:
            await self._replies.owe(record.id, delivery)
            await self._source.ack(delivery)
            count.labels(self.name, "accepted" if created else "duplicate").inc()
            log.info("intake_accepted", intake=self.name, job_id=record.id, new=created)
            if not self._source.holds:
                self._slots.release()
            return
        await self._source.reject(delivery, reason)
        count.labels(self.name, "rejected").inc()
        log.warning("intake_rejected", intake=self.name, message=delivery.id[:80], reason=reason)
        self._slots.release()

    async def _submit(self, delivery: Delivery) -> tuple[JobRecord, bool]:
        """Hand the message in; while there is no room for it, it waits, and with it what is behind it."""
        request = request_of(delivery, self._most_bytes)
        message_id, pause_s = message_id_of(delivery), _FULL_PAUSE_S
        while True:  # ends with the cancel, which nothing in here swallows
            try:
                return await self._desk.submit(
                    request, tenant=self._tenant, source=self._source_name, message_id=message_id
                )
            except ReelmeshError as error:
                if not error.retryable:
                    raise
                log.info("intake_waits", intake=self.name, reason=error.problem)
            except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
                log.warning("jobs_database_away", intake=self.name, error=foreign_text(error))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_FULL_PAUSE_S)

    async def _extend(self, delivery: Delivery) -> None:
        if self._source.extend_s is None:
            return
        while self._serving:
            await asyncio.sleep(self._source.extend_s)
            try:
                await self._source.extend(delivery)
            except Exception as error:
                # At worst it is delivered again, which makes no second job.
                log.warning("intake_not_extended", intake=self.name, error=foreign_text(error))

    async def _watch(self) -> None:
        """Tell how much waits at the broker."""
        while self._serving:
            waiting = await self._source.waiting()
            if waiting is not None:
                telemetry.INTAKE_WAITING.labels(self.name).set(waiting)
            await asyncio.sleep(_WATCH_S)

    async def _answer(self) -> None:
        """Tell producers of their jobs."""
        while self._serving:
            try:
                due = await self._replies.due()
            except sa.exc.DBAPIError as error:
                log.warning("jobs_database_away", intake=self.name, error=foreign_text(error.orig))
                due = []
            told = [await self._tell(owed) for owed in due]
            if not any(told):
                await asyncio.sleep(self._poll_s)

    async def _tell(self, owed: Owed) -> bool:
        """Whether the broker took what there is to tell."""
        if not self._serving:
            return False
        count = telemetry.INTAKE_ANSWERS
        try:
            final = await self._tell_news(owed)
        except NotFound:
            final = True
        except Exception as error:
            # One bad address of a reply must not stop the others; a broker that is away, the deliveries notice.
            kept = await self._replies.put_off(owed)
            count.labels(self.name, "failed" if kept else "dropped").inc()
            log.warning("intake_not_told", intake=self.name, job_id=owed.job_id, error=foreign_text(error))
            self._free_slot(not kept)
            return False
        if final:
            await self._replies.paid(owed)
            count.labels(self.name, "sent").inc()
            self._free_slot(True)
        return True

    def _free_slot(self, ended: bool) -> None:
        if ended and self._source.holds:
            self._slots.release()

    async def _tell_news(self, owed: Owed) -> bool:
        """Tell the newest of what the producer does not know; whether that was the job's end."""
        record = await self._store.get(owed.job_id)
        if record.is_final:
            await self._source.result(owed.address, owed.delivery, record)
            return True
        # One event exactly: those after it, the job's end perhaps, are news of the next time.
        for event in await self._store.events(owed.job_id, after=record.last_event - 1, limit=1):
            await self._source.progress(owed.address, owed.delivery, event)
        await self._replies.told(owed, record.last_event)
        return False


async def _end(iterator: AsyncIterator[Delivery]) -> None:
    close = getattr(iterator, "aclose", None)
    if close is not None:
        await close()


def _cause(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {foreign_text(error)}"
