"""What the durable executor's own queue is called, and which jobs it holds; used by the executor and the line.

The one invariant: only what comes back is in this queue: jobs of lost workers, and those that an earlier version put
there; new jobs wait in the line (serving.jobs.line).
"""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

APPLICATION: Final = "reelmesh"
APPLICATION_VERSION: Final = "jobs-1"
"""Raised by hand when workflows of the old shape can no longer be resumed: DBOS resumes its own version only.
"""
QUEUE: Final = "jobs"
WORKFLOW: Final = "run_job"


def without_workflow(connection: sa.Connection, job_ids: Sequence[str]) -> list[str]:
    """Which of the jobs were claimed but never reached the executor, which therefore cannot bring them back."""
    schema = None if connection.dialect.name == "sqlite" else "dbos"
    status = sa.table("workflow_status", sa.column("workflow_uuid"), schema=schema)
    query = sa.select(status.c.workflow_uuid).where(status.c.workflow_uuid.in_(job_ids))
    held = set(connection.scalars(query))
    return [job_id for job_id in job_ids if job_id not in held]
