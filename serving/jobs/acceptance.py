"""Acceptance: writes checked jobs, which puts them in line; used by the store.

The one invariant: jobs are accepted one transaction after the other, whichever process does it, so the bound of the
line holds exactly and two requests with one key, or two deliveries of one message, make one job.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from pydantic import JsonValue

from serving.errors import ReelmeshError, TooMany, Unprocessable
from serving.jobs.database import Database, lock
from serving.jobs.reading import read_jobs
from serving.jobs.records import JobRecord, StageRecord, StageState
from serving.jobs.refs import first_file_name
from serving.jobs.tables import ANYBODY, MAX_TITLE_CHARS, job_events, job_stages, jobs, note_delivery
from serving.jobs.together import Together
from serving.jobs.types import JobState, Lane
from serving.protocol.licences import COMMERCIAL, Use

IDEMPOTENCY_S: Final = 24 * 3600.0
"""How long an idempotency key names its job."""
_LOCK_KEY: Final = 7_385_003
"""PostgreSQL advisory lock held while jobs are accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What makes a request known again.

    Args:
        request_sha256: of the request's canonical form; an idempotency key belongs to one of them.
        idempotency_key: scoped by the tenant.
        source: the way it came.
        message_id: of the source's message; a second one with it is the same job.
    """

    request_sha256: str
    idempotency_key: str | None = None
    source: str = "http"
    message_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob(Named):
    """A checked job, ready to be accepted.

    Args:
        type: the job type's name.
        input: the request as JSON.
        stages: names of the stages, in order.
        deadline_at: no stage starts that would end later; Unix seconds.
        use: what it is for, which decides which licences allow its calls.
        webhook: where events are sent: ``url`` and ``events``.
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
    tenant: str = ANYBODY
    deadline_at: float | None = None
    stop_at: str | None = None
    use_cache: bool = True
    use: Use = COMMERCIAL
    webhook: dict[str, JsonValue] | None = None
    parent_id: str | None = None
    from_stage: str | None = None
    edits: dict[str, JsonValue] | None = None
    predicted_s: float | None = None


def new_job_id(now: float, place: int = 0) -> str:
    """An id that sorts by time: eleven hex digits of milliseconds, two of ``place`` (below 256), eight of chance."""
    return f"{int(now * 1000):011x}{place:02x}{secrets.token_hex(4)}"


class Acceptance:
    """Takes jobs into line.

    Args:
        database: opened, with its tables made.
        queued_jobs: most jobs that may wait before new ones are refused.
    """

    def __init__(self, database: Database, *, queued_jobs: int) -> None:
        self._queued_jobs = queued_jobs
        self._together = Together(database, self._accept_all)
        self._finding = Together(database, _find)

    async def find(self, named: Named) -> JobRecord | None:
        """The job that carries the request's idempotency key or message id, if there is one.

        Raises:
            Unprocessable: the key was used for another request.
        """
        return await self._finding.ask(named)

    async def accept(self, new: NewJob) -> tuple[JobRecord, bool]:
        """Write a job, or find the one that carries the same idempotency key or message id.

        Returns:
            The job, and whether it is new.

        Raises:
            Unprocessable: the key was used for another request.
            TooMany: as many jobs wait as may.
        """
        return await self._together.ask(new)

    def _accept_all(
        self, connection: sa.Connection, news: Sequence[NewJob]
    ) -> list[tuple[JobRecord, bool] | Exception]:
        lock(connection, _LOCK_KEY)
        now = time.time()
        _forget_old_keys(connection, news, now)
        known = _known(connection, news)
        waiting = connection.scalar(sa.select(sa.func.count()).select_from(jobs).where(jobs.c.state == JobState.QUEUED))
        room = self._queued_jobs - (waiting or 0)
        made: dict[str, dict[str, Any]] = {}
        answers: list[str | ReelmeshError] = []
        for new in news:
            try:
                job_id = known.job_of(new)
                if job_id is None:
                    if len(made) >= room:
                        raise _full(self._queued_jobs)
                    job_id = new_job_id(now, len(made))
                    made[job_id] = _row(new, job_id, now)
                    known.add(new, job_id)
            except ReelmeshError as error:
                answers.append(error)
            else:
                answers.append(job_id)
        stages = {job_id: _stages(job_id, new) for job_id, new in known.made.items()}
        _write(connection, made, stages, now)
        old = read_jobs(connection, {each for each in answers if isinstance(each, str)} - made.keys())
        return _answers(answers, made, stages, old)


def _full(bound: int) -> TooMany:
    return TooMany(f"{bound} jobs are waiting, which is the bound", fix="try again later")


class _Known:
    """Which keys and messages have a job already."""

    def __init__(self, keys: dict[str, tuple[str, str]], messages: dict[tuple[str, str], str]) -> None:
        self._keys = keys
        self._messages = messages
        self.made: dict[str, NewJob] = {}

    def job_of(self, new: Named) -> str | None:
        if new.idempotency_key is not None and (found := self._keys.get(new.idempotency_key)) is not None:
            job_id, digest = found
            if digest != new.request_sha256:
                raise Unprocessable(
                    "the key was used for another request", field="Idempotency-Key", fix="use a new key for a new job"
                )
            return job_id
        return None if new.message_id is None else self._messages.get((new.source, new.message_id))

    def add(self, new: NewJob, job_id: str) -> None:
        self.made[job_id] = new
        if new.idempotency_key is not None:
            self._keys[new.idempotency_key] = (job_id, new.request_sha256)
        if new.message_id is not None:
            self._messages[new.source, new.message_id] = job_id


def _find(connection: sa.Connection, wanted: Sequence[Named]) -> list[JobRecord | Exception | None]:
    known = _known(connection, wanted)
    found: list[str | ReelmeshError | None] = []
    for named in wanted:
        try:
            found.append(known.job_of(named))
        except ReelmeshError as error:
            found.append(error)
    records = read_jobs(connection, {each for each in found if isinstance(each, str)})
    return [records.get(each) if isinstance(each, str) else each for each in found]


def _keys_of(wanted: Sequence[Named]) -> list[str]:
    return [named.idempotency_key for named in wanted if named.idempotency_key is not None]


def _forget_old_keys(connection: sa.Connection, wanted: Sequence[Named], now: float) -> None:
    """Free those of the keys that named a job long enough: no two rows hold the same."""
    if keys := _keys_of(wanted):
        old = (jobs.c.idempotency_key.in_(keys), jobs.c.created_at < now - IDEMPOTENCY_S)
        connection.execute(sa.update(jobs).where(*old).values(idempotency_key=None))


def _known(connection: sa.Connection, news: Sequence[Named]) -> _Known:
    """What the database knows of the keys and messages of some jobs; keys of more than a day ago are forgotten."""
    keys = _keys_of(news)
    by_key: dict[str, tuple[str, str]] = {}
    if keys:
        query = sa.select(jobs.c.idempotency_key, jobs.c.id, jobs.c.request_sha256)
        here = (jobs.c.idempotency_key.in_(keys), jobs.c.created_at >= time.time() - IDEMPOTENCY_S)
        found = connection.execute(query.where(*here))
        by_key = {row.idempotency_key: (row.id, row.request_sha256) for row in found}
    sources = {new.source for new in news if new.message_id is not None}
    messages = {new.message_id for new in news if new.message_id is not None}
    by_message: dict[tuple[str, str], str] = {}
    if messages:
        query = sa.select(jobs.c.source, jobs.c.message_id, jobs.c.id)
        found = connection.execute(query.where(jobs.c.source.in_(sources), jobs.c.message_id.in_(messages)))
        by_message = {(row.source, row.message_id): row.id for row in found}
    return _Known(by_key, by_message)


def _write(
    connection: sa.Connection,
    made: Mapping[str, dict[str, Any]],
    stages: Mapping[str, list[dict[str, Any]]],
    now: float,
) -> None:
    if not made:
        return
    connection.execute(sa.insert(jobs), list(made.values()))
    first = [
        {"job_id": job_id, "seq": seq, "at": now, "kind": "state", "state": state, "progress": 0.0}
        for job_id in made
        for seq, state in enumerate(_FIRST_STATES, 1)
    ]
    connection.execute(sa.insert(job_events), first)
    connection.execute(sa.insert(job_stages), [stage for each in stages.values() for stage in each])
    for job_id, row in made.items():
        note_delivery(connection, job_id, webhook=row["webhook"], state=row["state"], seq=row["last_event"])


_FIRST_STATES: Final = (JobState.SUBMITTED, JobState.QUEUED)


def _answers(
    answers: Sequence[str | ReelmeshError],
    made: Mapping[str, dict[str, Any]],
    stages: Mapping[str, Sequence[Mapping[str, Any]]],
    old: Mapping[str, JobRecord],
) -> list[tuple[JobRecord, bool] | Exception]:
    told: list[tuple[JobRecord, bool] | Exception] = []
    fresh = dict(made)
    for answer in answers:
        if isinstance(answer, ReelmeshError):
            told.append(answer)
        elif answer in old:
            told.append((old[answer], False))
        else:
            rows = [StageRecord.model_validate(stage) for stage in stages[answer]]
            record = JobRecord.model_validate({**made[answer], "stages": rows})
            # The second of two requests with one key that came together finds the first one's job.
            told.append((record, fresh.pop(answer, None) is not None))
    return told


def _stages(job_id: str, new: NewJob) -> list[dict[str, Any]]:
    return [
        {"job_id": job_id, "name": name, "position": position, **_NEW_STAGE} for position, name in enumerate(new.stages)
    ]


_NEW_STAGE: Final[dict[str, Any]] = {
    "state": StageState.WAITING,
    "parts": 0,
    "parts_done": 0,
    "tries": 0,
    "models": [],
    "artifacts": [],
}


def _row(new: NewJob, job_id: str, now: float) -> dict[str, Any]:
    return {
        "id": job_id,
        "created_at": now,
        "title": _title(new.input),
        "state": _FIRST_STATES[-1],
        "progress": 0.0,
        "runs": 0,
        "cancel_requested": False,
        "predicted_s": new.predicted_s or 0.0,
        "last_event": len(_FIRST_STATES),
        **{name: getattr(new, name) for name in _KEPT},
    }


_KEPT: Final = (
    "type",
    "input",
    "lane",
    "timeout_s",
    "tries",
    "request_sha256",
    "idempotency_key",
    "tenant",
    "deadline_at",
    "stop_at",
    "use_cache",
    "use",
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
