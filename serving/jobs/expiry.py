"""Expiry: which ended jobs go, by age and by the bytes they hold, and what the others need; used by the keeper.

The one invariant: a job that has not ended, or that a job which has not ended was made from, never goes; and what goes
goes whole, in one transaction: row, events, stages, results, deliveries, and what the durable executor holds.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import sqlalchemy as sa

from serving.artifacts.retention import digest
from serving.jobs.database import Database
from serving.jobs.states import FINAL
from serving.jobs.tables import deliveries, job_stages, jobs, replies, stage_results
from serving.settings import RetentionSettings

_PAGE: Final = 100
_SHA256: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_WAITING: Final = "waiting"
"""The state of a delivery that still has to be sent."""
_DBOS_TABLES: Final = ("workflow_input", "workflow_output", "operation_outputs", "workflow_status")


@dataclass(frozen=True, slots=True)
class Stake:
    """What a job has in the store.

    Attributes:
        job_id: the job.
        ended_at: Unix seconds; None while it has not ended.
        owes: somebody has yet to be told of it, by webhook or through a queue.
        digests: of the artifacts it refers to, in its input, results, stages and output.
    """

    job_id: str
    ended_at: float | None
    owes: bool
    digests: frozenset[int]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Ids of the jobs that go: those over the age, and those over the bytes."""

    by_age: Sequence[str]
    by_bytes: Sequence[str]


def digests_in(texts: Iterable[str | None]) -> Iterator[int]:
    """Everything in texts that looks like the digest of an artifact; too much is kept rather than too little."""
    for text in texts:
        for found in _SHA256.findall(text or ""):
            yield digest(found)


def judge(stakes: Sequence[Stake], sizes: Mapping[int, int], bounds: RetentionSettings, now: float) -> Verdict:
    """Which jobs go.

    Args:
        stakes: of every job.
        sizes: bytes of each artifact of the store.
        bounds: age, bytes and grace.
        now: Unix seconds.
    """
    ended = sorted((each for each in stakes if each.ended_at is not None), key=_ended_at)
    too_old = now - bounds.age_s if bounds.age_s is not None else None
    by_age = [each for each in ended if too_old is not None and _ended_at(each) < too_old]
    gone = {each.job_id for each in by_age}
    if bounds.held_bytes is None:
        return Verdict([each.job_id for each in by_age], [])
    fresh = now - bounds.grace_s
    may_go = [each for each in ended if each.job_id not in gone and not each.owes and _ended_at(each) < fresh]
    may_go_ids = {each.job_id for each in may_go}
    held: set[int] = set()
    room = bounds.held_bytes
    for each in stakes:
        if each.job_id not in gone and each.job_id not in may_go_ids:
            room -= _add(held, each.digests, sizes)
    for index in range(len(may_go) - 1, -1, -1):
        room -= _add(held, may_go[index].digests, sizes)
        if room < 0:
            return Verdict([each.job_id for each in by_age], [each.job_id for each in may_go[: index + 1]])
    return Verdict([each.job_id for each in by_age], [])


def _ended_at(stake: Stake) -> float:
    return stake.ended_at or 0.0


def _add(held: set[int], digests: Collection[int], sizes: Mapping[int, int]) -> int:
    new = [each for each in digests if each not in held]
    held.update(new)
    return sum(sizes.get(each, 0) for each in new)


async def oldest_start(database: Database) -> float | None:
    """When the job began that began first of those that have not ended."""
    query = sa.select(sa.func.min(jobs.c.started_at)).where(jobs.c.state.not_in(list(FINAL)))
    return await database.run(lambda connection: connection.scalar(query))


async def read_stakes(database: Database) -> list[Stake]:
    """The stake of every job, read page by page."""
    stakes: list[Stake] = []
    after = ""
    while page := await database.run(partial(_page, after=after)):
        stakes += page
        after = page[-1].job_id
    return stakes


def _page(connection: sa.Connection, after: str) -> list[Stake]:
    texts = [sa.cast(column, sa.Text) for column in (jobs.c.input, jobs.c.output, jobs.c.edits)]
    children = jobs.alias("children")
    live_child = sa.exists().where(children.c.parent_id == jobs.c.id, children.c.state.not_in(list(FINAL)))
    query = (
        sa.select(jobs.c.id, jobs.c.state, jobs.c.finished_at, jobs.c.created_at, live_child.label("needed"), *texts)
        .where(jobs.c.id > after)
        .order_by(jobs.c.id)
        .limit(_PAGE)
    )
    rows = connection.execute(query).all()
    found = {row.id: set(digests_in(row[5:])) for row in rows}
    for table, column in ((stage_results, stage_results.c.value), (job_stages, job_stages.c.artifacts)):
        results = sa.select(table.c.job_id, sa.cast(column, sa.Text).label("text")).where(table.c.job_id.in_(found))
        for result in connection.execute(results):
            found[result.job_id].update(digests_in([result.text]))
    owing = _owing(connection, list(found))
    return [
        Stake(
            row.id,
            (row.finished_at or row.created_at) if row.state in FINAL and not row.needed else None,
            row.id in owing,
            frozenset(found[row.id]),
        )
        for row in rows
    ]


def _owing(connection: sa.Connection, job_ids: Sequence[str]) -> set[str]:
    waiting = sa.select(deliveries.c.job_id).where(deliveries.c.job_id.in_(job_ids), deliveries.c.state == _WAITING)
    owed = sa.select(replies.c.job_id).where(replies.c.job_id.in_(job_ids))
    return {*connection.scalars(waiting), *connection.scalars(owed)}


async def expire(database: Database, job_ids: Sequence[str]) -> list[str]:
    """Remove jobs that have ended, with everything about them; the ids of those that could go."""
    gone: list[str] = []
    for start in range(0, len(job_ids), _PAGE):
        some = job_ids[start : start + _PAGE]
        gone += await database.run(partial(_expire, job_ids=some))
    return gone


def _expire(connection: sa.Connection, job_ids: Sequence[str]) -> list[str]:
    children = jobs.alias("children")
    live_child = sa.exists().where(children.c.parent_id == jobs.c.id, children.c.state.not_in(list(FINAL)))
    ended = (jobs.c.id.in_(job_ids), jobs.c.state.in_(list(FINAL)), ~live_child)
    gone = [str(job_id) for job_id in connection.scalars(sa.delete(jobs).where(*ended).returning(jobs.c.id))]
    schema = None if connection.dialect.name == "sqlite" else "dbos"
    for name in _DBOS_TABLES:
        table = sa.table(name, sa.column("workflow_uuid"), schema=schema)
        connection.execute(sa.delete(table).where(table.c.workflow_uuid.in_(gone)))
    return gone
