"""What the durable executor's own queue is called, and what the executor knows of a job; asked by journal and line.

The one invariant: only what comes back is in this queue: jobs of lost workers, and those that an earlier version put
there; new jobs wait in the line (serving.jobs.line).
"""

from collections.abc import Sequence
from enum import Enum
from typing import Final

import sqlalchemy as sa

from serving.jobs.tables import workers

APPLICATION: Final = "reelmesh"
APPLICATION_VERSION: Final = "jobs-1"
"""Raised by hand when workflows of the old shape can no longer be resumed: DBOS resumes its own version only.
"""
QUEUE: Final = "jobs"
WORKFLOW: Final = "run_job"
_PENDING: Final = "PENDING"
_COMES_BACK: Final = (_PENDING, "ENQUEUED", "DELAYED")


class Workflow(Enum):
    """What the executor has of a job."""

    NONE = "none"
    """Nothing: it was never started, and only the line can bring it back."""
    OPEN = "open"
    """A run that goes on, or comes back."""
    ENDED = "ended"
    """A run that is over for the executor, which therefore never brings the job back."""


def workflows(connection: sa.Connection, job_ids: Sequence[str]) -> dict[str, Workflow]:
    """What the executor has of each of the jobs."""
    status = _status(connection)
    query = sa.select(status.c.workflow_uuid, status.c.status).where(status.c.workflow_uuid.in_(job_ids))
    held = {row.workflow_uuid: row.status for row in connection.execute(query)}
    ended = {job_id: Workflow.OPEN if held[job_id] in _COMES_BACK else Workflow.ENDED for job_id in held}
    return {job_id: ended.get(job_id, Workflow.NONE) for job_id in job_ids}


def executors(connection: sa.Connection) -> set[str]:
    """Workers that the executor still counts on though they are none, or no longer."""
    status = _status(connection)
    query = sa.select(status.c.executor_id).where(
        status.c.status == _PENDING,
        status.c.application_version == APPLICATION_VERSION,
        status.c.executor_id.not_in(sa.select(workers.c.id)),
    )
    return set(connection.scalars(query.distinct()))


def _status(connection: sa.Connection) -> sa.TableClause:
    schema = None if connection.dialect.name == "sqlite" else "dbos"
    names = ("workflow_uuid", "status", "executor_id", "application_version")
    return sa.table("workflow_status", *(sa.column(name) for name in names), schema=schema)
