"""JobStore: accept, show, list and cancel jobs in the database; used by whoever takes jobs in or shows them.

The one invariant: a job that was accepted is in the database, and thereby in line, before the caller hears of it.
"""

import re
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import sqlalchemy as sa
from pydantic import JsonValue

from serving.errors import Conflict, NotFound, TooMany, Unavailable, Unprocessable
from serving.jobs.database import Database
from serving.jobs.dead import is_dead_letter
from serving.jobs.forecast import Forecast
from serving.jobs.records import EventRecord, JobPage, JobRecord, StageRecord, StageState
from serving.jobs.refs import first_file_name
from serving.jobs.states import WAITING, WORKING, priority_of
from serving.jobs.tables import ANYBODY, MAX_ID_CHARS, MAX_TITLE_CHARS, change_job, job_events, job_stages, jobs
from serving.jobs.types import JobState, Lane

IDEMPOTENCY_S: Final = 24 * 3600.0
"""How long an idempotency key names its job."""
MAX_EVENTS: Final = 500
"""Most events in one read."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A checked job, ready to be accepted.

    Args:
        type: the job type's name.
        input: the request as JSON.
        stages: names of the stages, in order.
        request_sha256: of the request's canonical form; an idempotency key belongs to one of them.
        idempotency_key: scoped by the tenant.
        deadline_at: no stage starts that would end later; Unix seconds.
        webhook: where events are sent: ``url`` and ``events``.
        message_id: of the source's message; a second one with it is the same job.
        parent_id: the job whose finished stages before ``from_stage`` are taken.
        edits: merge patches on the parent's input and results.
        predicted_s: seconds of CPU and GPU it will take; None takes what jobs of the type took.
    """

    type: str
    input: dict[str, JsonValue]
    lane: Lane
    timeout_s: float
    tries: int
    stages: Sequence[str]
    request_sha256: str
    idempotency_key: str | None = None
    tenant: str = ANYBODY
    deadline_at: float | None = None
    stop_at: str | None = None
    use_cache: bool = True
    webhook: dict[str, JsonValue] | None = None
    source: str = "http"
    message_id: str | None = None
    parent_id: str | None = None
    from_stage: str | None = None
    edits: dict[str, JsonValue] | None = None
    predicted_s: float | None = None


def new_job_id(now: float) -> str:
    """An id that sorts by time: eleven hex digits of milliseconds, ten of chance."""
    return f"{int(now * 1000):011x}{secrets.token_hex(5)}"


_JOB_ID: Final = re.compile(f"[0-9a-f]{{1,{MAX_ID_CHARS}}}")


def is_job_id(text: str) -> bool:
    """Whether a job may be called that; what else clients write never reaches the database."""
    return _JOB_ID.fullmatch(text) is not None


def no_such_job(job_id: str) -> NotFound:
    """There is no job of that name, or none that the caller may see."""
    return NotFound(f"no job is called {job_id[:MAX_ID_CHARS]!r}", fix="`reelmesh jobs list` shows the jobs")


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
        self._queued_jobs = queued_jobs

    async def accept(self, new: NewJob) -> tuple[JobRecord, bool]:
        """Write a job, which puts it in line, or find the one that carries the same idempotency key or message id.

        Returns:
            The job, and whether it is new.

        Raises:
            Unprocessable: the key was used for another request.
            TooMany: as many jobs wait as may.
            Unavailable: another request with the key is being accepted.
        """
        if new.predicted_s is None:
            new = replace(new, predicted_s=await self._forecast.cost_s(new.type))
        try:
            job_id, created = await self._database.run(lambda connection: self._accept(connection, new))
        except TooMany as full:
            raise TooMany(full.problem, fix=full.fix, retry_after_s=await self._forecast.room_in_s()) from full
        return await self.get(job_id), created

    def _accept(self, connection: sa.Connection, new: NewJob) -> tuple[str, bool]:
        now = time.time()
        job_id = new_job_id(now)
        if new.idempotency_key is not None:
            # Writing first takes SQLite's write lock: two requests with one key cannot both find it unused.
            _forget_old_key(connection, new.idempotency_key, now)
        if (known := _job_of_key(connection, new) or _job_of_message(connection, new)) is not None:
            return known, False
        waiting = connection.scalar(sa.select(sa.func.count()).select_from(jobs).where(jobs.c.state == JobState.QUEUED))
        if (waiting or 0) >= self._queued_jobs:
            raise TooMany(f"{waiting} jobs are waiting, which is the bound", fix="try again later")
        try:
            connection.execute(sa.insert(jobs), {"id": job_id, "created_at": now, **_row(new)})
        except sa.exc.IntegrityError as error:
            raise Unavailable("another request with this key or message is being accepted") from error
        connection.execute(sa.insert(job_events), {"job_id": job_id, "seq": 1, "at": now, **_FIRST_EVENT})
        stages = [
            {"job_id": job_id, "name": name, "position": position, **_NEW_STAGE}
            for position, name in enumerate(new.stages)
        ]
        connection.execute(sa.insert(job_stages), stages)
        values = {"state": JobState.QUEUED}
        change_job(connection, job_id, kind="state", among=[JobState.SUBMITTED], values=values)
        return job_id, True

    async def get(self, job_id: str) -> JobRecord:
        """One job with its stages; raises :class:`NotFound`."""
        if not is_job_id(job_id):
            raise no_such_job(job_id)
        record = await self._database.run(lambda connection: read_job(connection, job_id))
        if record.state not in WAITING:
            return record
        place = await self._forecast.place(job_id)
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
        """A page of jobs, newest first, without input and stages.

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
        columns = [column for column in jobs.c if column is not jobs.c.input]
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
        page = [_record(row, []) for row in rows[:limit]]
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


_FIRST_EVENT: Final[dict[str, Any]] = {"kind": "state", "state": JobState.SUBMITTED, "progress": 0.0}
_NEW_STAGE: Final[dict[str, Any]] = {
    "state": StageState.WAITING,
    "parts": 0,
    "parts_done": 0,
    "tries": 0,
    "models": [],
    "artifacts": [],
}


def _row(new: NewJob) -> dict[str, Any]:
    return {
        "type": new.type,
        "title": _title(new.input),
        "state": JobState.SUBMITTED,
        "lane": new.lane,
        "priority": priority_of(new.lane),
        "progress": 0.0,
        "timeout_s": new.timeout_s,
        "tries": new.tries,
        "runs": 0,
        "cancel_requested": False,
        "input": new.input,
        "predicted_s": new.predicted_s or 0.0,
        "idempotency_key": new.idempotency_key,
        "request_sha256": new.request_sha256,
        "last_event": 1,
        **{name: value for name in _KEPT if (value := getattr(new, name)) is not None},
    }


_KEPT: Final = (
    "tenant",
    "deadline_at",
    "stop_at",
    "use_cache",
    "webhook",
    "source",
    "message_id",
    "parent_id",
    "from_stage",
    "edits",
)
"""Columns that hold what :class:`NewJob` says."""


def _title(value: Mapping[str, JsonValue]) -> str | None:
    """What a person called the job, or else its first file, for listings."""
    title = value.get("title")
    if not isinstance(title, str) or not title.strip():
        title = first_file_name(dict(value))
    return title[:MAX_TITLE_CHARS] if title else None


def _forget_old_key(connection: sa.Connection, key: str, now: float) -> None:
    old = (jobs.c.idempotency_key == key, jobs.c.created_at < now - IDEMPOTENCY_S)
    connection.execute(sa.update(jobs).where(*old).values(idempotency_key=None))


def _job_of_key(connection: sa.Connection, new: NewJob) -> str | None:
    if new.idempotency_key is None:
        return None
    query = sa.select(jobs.c.id, jobs.c.request_sha256).where(jobs.c.idempotency_key == new.idempotency_key)
    row = connection.execute(query).first()
    if row is None:
        return None
    if row.request_sha256 != new.request_sha256:
        raise Unprocessable(
            "the key was used for another request", field="Idempotency-Key", fix="use a new key for a new job"
        )
    return str(row.id)


def _job_of_message(connection: sa.Connection, new: NewJob) -> str | None:
    if new.message_id is None:
        return None
    known = (jobs.c.source == new.source, jobs.c.message_id == new.message_id)
    found = connection.scalar(sa.select(jobs.c.id).where(*known))
    return None if found is None else str(found)


def read_job(connection: sa.Connection, job_id: str) -> JobRecord:
    """One job with its stages, inside a transaction; raises :class:`NotFound`."""
    row = connection.execute(sa.select(jobs).where(jobs.c.id == job_id)).first()
    if row is None:
        raise no_such_job(job_id)
    query = sa.select(job_stages).where(job_stages.c.job_id == job_id).order_by(job_stages.c.position)
    stages = [StageRecord.model_validate(stage._asdict()) for stage in connection.execute(query)]
    return _record(row, stages)


def _record(row: sa.Row[Any], stages: Sequence[StageRecord]) -> JobRecord:
    return JobRecord.model_validate({**row._asdict(), "stages": stages})


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
