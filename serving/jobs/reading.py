"""Jobs read from their tables, inside a transaction; used by store, acceptance and line.

The one invariant: however many jobs are read, it takes two statements.
"""

import re
from collections.abc import Collection, Sequence
from typing import Any, Final

import sqlalchemy as sa

from serving.errors import NotFound
from serving.jobs.records import JobRecord, StageRecord
from serving.jobs.tables import MAX_ID_CHARS, job_stages, jobs

_JOB_ID: Final = re.compile(f"[0-9a-f]{{1,{MAX_ID_CHARS}}}")


def is_job_id(text: str) -> bool:
    """Whether a job may be called that; what else clients write never reaches the database."""
    return _JOB_ID.fullmatch(text) is not None


def no_such_job(job_id: str) -> NotFound:
    """There is no job of that name, or none that the caller may see."""
    return NotFound(f"no job is called {job_id[:MAX_ID_CHARS]!r}", fix="`reelmesh jobs list` shows the jobs")


def read_jobs(connection: sa.Connection, job_ids: Collection[str]) -> dict[str, JobRecord]:
    """Those of the jobs that are there, with their stages."""
    if not job_ids:
        return {}
    wanted = list(job_ids)
    stages: dict[str, list[StageRecord]] = {}
    query = sa.select(job_stages).where(job_stages.c.job_id.in_(wanted)).order_by(job_stages.c.position)
    for row in connection.execute(query):
        stages.setdefault(row.job_id, []).append(StageRecord.model_validate(row._asdict()))
    rows = connection.execute(sa.select(jobs).where(jobs.c.id.in_(wanted)))
    return {row.id: record_of(row, stages.get(row.id, [])) for row in rows}


def read_job(connection: sa.Connection, job_id: str) -> JobRecord:
    """One job with its stages; raises :class:`NotFound`."""
    found = read_jobs(connection, [job_id]).get(job_id)
    if found is None:
        raise no_such_job(job_id)
    return found


def record_of(row: sa.Row[Any], stages: Sequence[StageRecord]) -> JobRecord:
    """A row of the jobs table as a record."""
    return JobRecord.model_validate({**row._asdict(), "stages": stages})
