"""Line: the waiting jobs in the database, and how a worker takes the next of them; used by the worker.

The one invariant: a job is claimed in the transaction that says who works on it, one claim after the other, so two
workers never claim one job and the policy's memory fits what was started.

In line are the queued jobs that never started. A queued job that did start comes back through the durable executor,
which holds its finished calls.
"""

import math
import time
from functools import partial
from typing import Any, Final

import sqlalchemy as sa

from serving.jobs.database import Database, lock
from serving.jobs.queue import Workflow, workflows
from serving.jobs.reading import read_job
from serving.jobs.records import JobRecord
from serving.jobs.scheduling import Head, charge, choose
from serving.jobs.shares import remember, shares_of
from serving.jobs.states import FINAL, WORKING
from serving.jobs.tables import change_job, jobs
from serving.jobs.types import JobState, Lane

_LOCK_KEY: Final = 7_385_002
"""PostgreSQL advisory lock held while a job is claimed."""
_TRIES: Final = 4
"""Jobs tried in one claim; one that was chosen may be cancelled in the same moment."""
UNSTARTED: Final[dict[str, Any]] = {
    "state": JobState.QUEUED,
    "worker": None,
    "started_at": None,
    "runs": jobs.c.runs - 1,
}
"""What makes a job that was claimed and never started one that is in line, as if nobody had claimed it."""
_ANY: Final = sa.text("SELECT 1 FROM jobs WHERE state = 'queued' AND started_at IS NULL LIMIT 1")
_HEADS: Final = sa.text(
    # A skip scan of the index jobs_in_line: one step per tenant and lane, however many jobs wait behind each.
    """
    WITH RECURSIVE groups(lane, tenant) AS (
        SELECT l.lane, (SELECT min(j.tenant) FROM jobs j WHERE j.state = 'queued' AND j.lane = l.lane)
        FROM (SELECT 'critical' AS lane UNION SELECT 'high' UNION SELECT 'medium' UNION SELECT 'low') AS l
        UNION ALL
        SELECT g.lane, (
            SELECT min(j.tenant) FROM jobs j WHERE j.state = 'queued' AND j.lane = g.lane AND j.tenant > g.tenant)
        FROM groups g WHERE g.tenant IS NOT NULL
    )
    SELECT (
        SELECT j.id FROM jobs j
        WHERE j.state = 'queued' AND j.lane = g.lane AND j.tenant = g.tenant AND j.started_at IS NULL
        ORDER BY j.lane, j.tenant, j.id LIMIT 1)
    FROM groups g WHERE g.tenant IS NOT NULL
    LIMIT 10000
    """
)


class Line:
    """The line as one worker sees it.

    Args:
        database: opened, with its tables made.
        worker: the worker's id.
    """

    def __init__(self, database: Database, worker: str) -> None:
        self._database = database
        self._worker = worker

    async def claim(self) -> JobRecord | None:
        """Take the next job; None when nothing waits."""
        return await self._database.run(self._claim)

    def _claim(self, connection: sa.Connection) -> JobRecord | None:
        # Most looks find nothing: they take no lock.
        if connection.scalar(_ANY) is None:
            return None
        lock(connection, _LOCK_KEY)
        for _ in range(_TRIES):
            heads, shares = heads_of(connection), shares_of(connection)
            chosen = choose(heads, shares, time.time())
            if chosen is None:
                return None
            record = take_up(connection, chosen.job_id, self._worker)
            if record is not None:
                remember(connection, charge(chosen, heads, shares))
                return record
        return None

    async def put_back(self, job_id: str) -> None:
        """Undo a claim whose work could not be started; does nothing when the durable executor holds the job."""

        def write(connection: sa.Connection) -> None:
            if workflows(connection, [job_id])[job_id] is Workflow.NONE:
                event = {"reason": "its worker could not start it"}
                own = self._worker
                change_job(connection, job_id, kind="state", among=WORKING, values=UNSTARTED, event=event, worker=own)

        await self._database.persist(write, patience_s=math.inf)


def heads_of(connection: sa.Connection) -> list[Head]:
    """The oldest job in line of each tenant in each lane."""
    # Two queries: joined, PostgreSQL without statistics reads the whole table.
    ids = [job_id for job_id in connection.scalars(_HEADS) if job_id is not None]
    columns = (jobs.c.id, jobs.c.lane, jobs.c.tenant, jobs.c.created_at, jobs.c.predicted_s)
    rows = connection.execute(sa.select(*columns).where(jobs.c.id.in_(ids)))
    return [Head(row.id, Lane(row.lane), row.tenant, row.created_at, row.predicted_s) for row in rows]


def take_up(connection: sa.Connection, job_id: str, worker: str) -> JobRecord | None:
    """Make a waiting or lost job the worker's; None when there is nothing to do any more."""
    row = connection.execute(sa.select(jobs.c.started_at, jobs.c.state).where(jobs.c.id == job_id)).first()
    if row is None or row.state in FINAL:
        return None
    now = time.time()
    taken = {"worker": worker, "runs": jobs.c.runs + 1, "taken_at": now}
    taken["started_at"] = sa.func.coalesce(jobs.c.started_at, now)
    event = {"reason": "resumed at the first unfinished stage" if row.started_at else None}
    step = {"state": JobState.PROCESSING}
    change = partial(change_job, connection, job_id, kind="state", event=event)
    # One that is still called working is another's whose loss was seen by the durable executor first.
    if change(among=(JobState.QUEUED,), values=taken | step) or change(among=WORKING, values=taken):
        return read_job(connection, job_id)
    return None
