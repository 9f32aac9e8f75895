"""JobStore: accept, show, list and cancel jobs in the database; used by whoever takes jobs in or shows them.

The one invariant: a job that was accepted is in the database, and thereby in line, before the caller hears of it.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

import sqlalchemy as sa

from serving.errors import Conflict, TooMany, Unprocessable
from serving.jobs.acceptance import Acceptance, Named, NewJob
from serving.jobs.database import Database
from serving.jobs.dead import is_dead_letter
from serving.jobs.forecast import Forecast
from serving.jobs.reading import is_job_id, no_such_job, read_job, read_jobs, record_of
from serving.jobs.records import EventRecord, JobPage, JobRecord, StageState
from serving.jobs.states import WAITING, WORKING
from serving.jobs.tables import change_job, job_events, job_stages, jobs
from serving.jobs.together import Together
from serving.jobs.types import JobState, Lane

MAX_EVENTS: Final = 500
"""Most events in one read."""


class JobStore:
    """Jobs, as front ends see them.

    Args:
        database: opened, with its tables made.
        queued_jobs: most jobs that may wait before new ones are refused.
        concurrent_jobs: jobs one worker runs at a time; estimates of the wait need it.
    """

    def __init__(self, database: Database, *, queued_jobs: int, concurrent_jobs: int = 1) -> None:
        self.database = self._database = database
        self._forecast = Forecast(database, concurrent_jobs=concurrent_jobs)
        self._acceptance = Acceptance(database, queued_jobs=queued_jobs)
        self._reading = Together(database, _read)

    async def known(self, named: Named) -> JobRecord | None:
        """The job that a request made before, by its idempotency key or message id.

        Raises:
            Unprocessable: the key was used for another request.
        """
        if named.idempotency_key is None and named.message_id is None:
            return None
        record = await self._acceptance.find(named)
        return None if record is None else await self._placed(record)

    async def accept(self, new: NewJob) -> tuple[JobRecord, bool]:
        """Write a job, which puts it in line, or find the one that carries the same idempotency key or message id.

        Returns:
            The job, and whether it is new.

        Raises:
            Unprocessable: the key was used for another request.
            TooMany: as many jobs wait as may.
        """
        if new.predicted_s is None:
            new = replace(new, predicted_s=await self._forecast.cost_s(new.type))
        try:
            record, created = await self._acceptance.accept(new)
        except TooMany as full:
            raise TooMany(full.problem, fix=full.fix, retry_after_s=await self._forecast.room_in_s()) from full
        return await self._placed(record), created

    async def get(self, job_id: str) -> JobRecord:
        """One job with its stages; raises :class:`NotFound`."""
        if not is_job_id(job_id):
            raise no_such_job(job_id)
        return await self._placed(await self._reading.ask(job_id))

    async def _placed(self, record: JobRecord) -> JobRecord:
        if record.state not in WAITING:
            return record
        place = await self._forecast.place(record.id)
        return record.model_copy(update={"queue_position": place.position, "estimated_wait_s": place.wait_s})

    async def page(
        self,
        *,
        states: Collection[JobState] = (),
        type_name: str | None = None,
        lane: Lane | None = None,
        tenant: str | None = None,
        parent_id: str | None = None,
        dead: bool | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> JobPage:
        """A page of jobs, newest first, without input, edits and stages.

        Args:
            states: any of these; empty for all.
            type_name: of this job type.
            lane: in this lane.
            tenant: of this tenant.
            parent_id: forks of this job.
            dead: True for dead letters that wait to be re-driven, False for all but them.
            limit: most jobs in the page.
            cursor: the last page's ``next_cursor``; it is a place in time, and tells nothing of whose job it was.

        Raises:
            Unprocessable: the cursor is none of ours.
        """
        columns = [column for column in jobs.c if column.name not in {"input", "edits"}]
        query = sa.select(*columns).order_by(jobs.c.id.desc()).limit(limit + 1)
        if states:
            query = query.where(jobs.c.state.in_(list(states)))
        if type_name is not None:
            query = query.where(jobs.c.type == type_name)
        for column, value in ((jobs.c.lane, lane), (jobs.c.tenant, tenant), (jobs.c.parent_id, parent_id)):
            if value is not None:
                query = query.where(column == value)
        if dead is not None:
            query = query.where(is_dead_letter() if dead else ~is_dead_letter())
        if cursor is not None:
            if not is_job_id(cursor):
                raise Unprocessable("the cursor is none of ours", field="cursor", fix="use next_cursor of a page")
            query = query.where(jobs.c.id < cursor)
        rows = await self._database.run(lambda connection: connection.execute(query).all())
        page = [record_of(row, []) for row in rows[:limit]]
        return JobPage(jobs=page, next_cursor=page[-1].id if len(rows) > limit else None)

    async def events(self, job_id: str, *, after: int = 0, limit: int = MAX_EVENTS) -> list[EventRecord]:
        """The job's events numbered above ``after``, oldest first."""
        query = (
            sa.select(job_events)
            .where(job_events.c.job_id == job_id, job_events.c.seq > after)
            .order_by(job_events.c.seq)
            .limit(min(limit, MAX_EVENTS))
        )
        rows = await self._database.run(lambda connection: connection.execute(query).all())
        return [EventRecord.model_validate(row._asdict()) for row in rows]

    async def tenant_of(self, job_id: str) -> str:
        """Whose job it is."""
        query = sa.select(jobs.c.tenant).where(jobs.c.id == job_id)
        return str(await self._database.run(lambda connection: connection.scalar(query)))

    async def last_events(self, job_ids: Collection[str]) -> dict[str, int]:
        """The number of the newest event of each job."""
        query = sa.select(jobs.c.id, jobs.c.last_event).where(jobs.c.id.in_(list(job_ids)))
        rows = await self._database.run(lambda connection: connection.execute(query).all())
        return {row.id: row.last_event for row in rows}

    async def cancel(self, job_id: str) -> JobRecord:
        """Cancel a job: at once if it waits, else the worker stops it within two seconds.

        Raises:
            NotFound: no such job.
            Conflict: the job has ended already.
        """
        await self._database.run(lambda connection: _cancel(connection, job_id))
        return await self.get(job_id)

    async def counts(self, *, tenant: str | None = None) -> dict[tuple[str, JobState, Lane], int]:
        """How many jobs there are of each type, state and lane; of one tenant, or of all."""
        by = (jobs.c.type, jobs.c.state, jobs.c.lane)
        query = sa.select(*by, sa.func.count().label("n")).group_by(*by)
        if tenant is not None:
            query = query.where(jobs.c.tenant == tenant)
        rows = await self._database.run(lambda connection: connection.execute(query).all())
        return {(row.type, JobState(row.state), Lane(row.lane)): row.n for row in rows}


def _read(connection: sa.Connection, job_ids: Sequence[str]) -> list[JobRecord | Exception]:
    found = read_jobs(connection, set(job_ids))
    return [found.get(job_id) or no_such_job(job_id) for job_id in job_ids]


_WHILE_WAITING: Final = "cancelled while it waited"
_ASKED: Final = "somebody asked to cancel"


def _cancel(connection: sa.Connection, job_id: str) -> None:
    """Cancel a waiting job, or leave word for the worker."""
    now = time.time()
    ended = {"state": JobState.CANCELLED, "finished_at": now, "cancel_requested": True}
    if change_job(connection, job_id, kind="state", among=WAITING, values=ended, event={"reason": _WHILE_WAITING}):
        connection.execute(
            sa.update(job_stages).where(job_stages.c.job_id == job_id).values(state=StageState.CANCELLED)
        )
        return
    asked = {"cancel_requested": True}
    if change_job(connection, job_id, kind="state", among=WORKING, values=asked, event={"reason": _ASKED}):
        return
    state = read_job(connection, job_id).state
    raise Conflict(f"the job is {state} already", fix="only a waiting or working job can be cancelled")
