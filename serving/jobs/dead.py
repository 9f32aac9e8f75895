"""Dead letters: jobs that failed though nothing is wrong with them; the worker sets them aside, front ends list them.

The one invariant: a job is a dead letter from its last failed try until a job was made from it, and it never changes:
a re-drive is a new job that takes what the old one finished.
"""

from typing import Final, Protocol

import sqlalchemy as sa

from serving.errors import Conflict, EngineFailed, ReelmeshError
from serving.jobs.records import JobRecord, StageState
from serving.jobs.tables import jobs

REDRIVE: Final = "mend the cause, then re-drive it: `reelmesh jobs dead` shows the job"
_FINISHED: Final = (StageState.DONE, StageState.SKIPPED)


class WorkersLost(EngineFailed):
    """The job's worker was lost so often that the job is likely to be what kills it."""


def is_dead_end(error: ReelmeshError) -> bool:
    """Whether a job that ends by this error belongs to the dead letters: its tries, or its workers, are used up."""
    return error.retryable or isinstance(error, WorkersLost)


def is_dead_letter() -> sa.ColumnElement[bool]:
    """The condition on a row of ``jobs``: a dead letter that nobody has re-driven."""
    children = jobs.alias("children")
    driven = sa.select(children.c.id).where(children.c.parent_id == jobs.c.id).exists()
    return jobs.c.dead_at.is_not(None) & ~driven


def redrive_stage(record: JobRecord) -> str:
    """The stage from which a dead letter goes on: the first that did not finish.

    Raises:
        Conflict: the job is none of the dead letters.
    """
    if record.dead_at is None:
        raise Conflict(
            f"the job is {record.state}, and no dead letter",
            fix="`reelmesh jobs dead` lists those; `reelmesh jobs retry` runs any ended job again from a stage",
        )
    open_ = [stage.name for stage in record.stages if stage.state not in _FINISHED]
    return open_[0] if open_ else record.stages[-1].name


class Retries(Protocol):
    """What makes a new job of an old one: the desk."""

    async def retry(self, job_id: str, *, from_stage: str, once: bool) -> JobRecord:
        """A new job that goes on from a stage of the old one, which with ``once`` must be its first."""


async def redrive(record: JobRecord, desk: Retries) -> JobRecord:
    """Make the job that goes on where a dead letter ended.

    Raises:
        Conflict: the job is none of the dead letters, or a job was made from it already.
    """
    return await desk.retry(record.id, from_stage=redrive_stage(record), once=True)
