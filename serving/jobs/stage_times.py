"""How long stages take, measured: decides whether one still fits before a job's deadline; used by the job context.

The one invariant: what was never measured is not held against a job.
"""

import statistics
from typing import Final

import sqlalchemy as sa

from serving.errors import DeadlineExceeded
from serving.jobs.database import Database
from serving.jobs.records import StageState
from serving.jobs.tables import job_stages, jobs

SAMPLES: Final = 50
"""The newest finished runs that count."""


class StageTimes:
    """What earlier jobs tell.

    Args:
        database: opened, with its tables made.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def expected_s(self, job_type: str, stage: str, parts: int) -> float | None:
        """Seconds a stage of ``parts`` calls is likely to take; None where it never ran.

        The median of seconds a call over the newest runs that took nothing from the cache, times the calls.
        """
        length = job_stages.c.ended_at - job_stages.c.started_at
        query = (
            sa.select((length / job_stages.c.parts).label("part_s"))
            .join(jobs, jobs.c.id == job_stages.c.job_id)
            .where(jobs.c.type == job_type, job_stages.c.name == stage, job_stages.c.state == StageState.DONE)
            .where(job_stages.c.parts > 0, job_stages.c.parts_cached == 0)
            .order_by(jobs.c.id.desc())
            .limit(SAMPLES)
        )
        found = await self._database.persist(lambda connection: [float(part_s) for part_s in connection.scalars(query)])
        return statistics.median(found) * parts if found else None


def check_fits(stage: str, expected_s: float | None, left_s: float) -> None:
    """Raise :class:`DeadlineExceeded` for a stage that would end after the deadline."""
    if left_s <= 0:
        raise DeadlineExceeded(
            f"the deadline passed {-left_s:.1f} s before {stage} could start", field=stage, fix="give a later deadline"
        )
    if expected_s is not None and expected_s > left_s:
        raise DeadlineExceeded(
            f"{stage} takes about {expected_s:.1f} s and {left_s:.1f} s are left before the deadline",
            field=stage,
            fix="give a later deadline",
        )
