"""Results: every finished part of a stage, and the cache over all jobs that they make; used by the job context.

The one invariant: a part's row is written before the durable executor hears that the part is over, and a row that
refers to an artifact which is gone counts as none; so finished work is found again whatever died in between.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa
from pydantic import JsonValue

from serving.artifacts.store import ArtifactStore
from serving.jobs.database import Database
from serving.jobs.keys import json_refs
from serving.jobs.records import StageState
from serving.jobs.tables import job_stages, jobs, stage_results


class Origin(StrEnum):
    """Where a result came from."""

    MADE = "made"
    """By this job."""
    CACHED = "cached"
    """Another job had made it."""
    PARENT = "parent"
    """The job it was forked from had it."""
    EDITED = "edited"
    """Somebody changed it by hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One finished part.

    Attributes:
        value: as JSON.
        value_type: ``module:name`` of its type, None where it is no model.
        key: of everything it depends on; None where that is not known.
        served_by: ``backend/model``; None for own code.
        replica: which replica did it.
        tries: how many it took.
        started_at: Unix seconds, as ``ended_at``.
        cpu_s: CPU seconds; 0 unless made by this job, as ``gpu_s``.
        origin: where it came from.
    """

    value: str
    value_type: str | None = None
    key: str | None = None
    served_by: str | None = None
    replica: str | None = None
    tries: int = 1
    started_at: float
    ended_at: float
    cpu_s: float = 0.0
    gpu_s: float = 0.0
    origin: Origin = Origin.MADE


@dataclass(frozen=True, slots=True)
class Place:
    """Which part of which stage of which job."""

    job_id: str
    stage: str
    part: int


_COLUMNS: Final = [
    stage_results.c[name]
    for name in ("value", "value_type", "key", "served_by", "replica", "tries", "started_at", "ended_at")
]
MAX_LISTED: Final = 100
"""Most results in one listing."""
_TRUE: Final = (Origin.MADE, Origin.CACHED, Origin.PARENT)
"""Origins of results that say what the model said; an edited one is nobody else's."""


class Results:
    """The table of results.

    Args:
        database: opened, with its tables made.
        artifacts: where what results refer to must still be.
    """

    def __init__(self, database: Database, artifacts: ArtifactStore) -> None:
        self._database = database
        self._artifacts = artifacts

    async def at(self, place: Place) -> Result | None:
        """What a part of a job gave, if it has finished and its artifacts are here."""
        here = (
            stage_results.c.job_id == place.job_id,
            stage_results.c.stage == place.stage,
            stage_results.c.part == place.part,
        )
        return await self._first(sa.select(*_COLUMNS, stage_results.c.origin).where(*here))

    async def of_job(self, job_id: str, stage: str, key: str) -> Result | None:
        """What a job's stage gave for a key, in whichever part."""
        here = (stage_results.c.job_id == job_id, stage_results.c.stage == stage, stage_results.c.key == key)
        return await self._first(sa.select(*_COLUMNS, stage_results.c.origin).where(*here).limit(1))

    async def cached(self, key: str) -> Result | None:
        """The newest result for a key of any job that lets others use its results."""
        query = (
            sa.select(*_COLUMNS, stage_results.c.origin)
            .join(jobs, jobs.c.id == stage_results.c.job_id)
            .where(stage_results.c.key == key, stage_results.c.origin.in_(list(_TRUE)), jobs.c.use_cache)
            .order_by(stage_results.c.ended_at.desc())
            .limit(1)
        )
        return await self._first(query)

    async def listed(self, job_id: str, stage: str, *, after: int, limit: int) -> list[tuple[int, Result]]:
        """Finished parts of a stage numbered above ``after``, in order, with their numbers."""
        query = (
            sa.select(*_COLUMNS, stage_results.c.origin, stage_results.c.part, stage_results.c.cpu_s)
            .add_columns(stage_results.c.gpu_s)
            .where(stage_results.c.job_id == job_id, stage_results.c.stage == stage, stage_results.c.part > after)
            .order_by(stage_results.c.part)
            .limit(limit)
        )
        rows = await self._database.run(lambda connection: [dict(row._mapping) for row in connection.execute(query)])
        return [(row.pop("part"), Result(**row | {"origin": Origin(row["origin"])})) for row in rows]

    async def is_done(self, job_id: str, stage: str) -> bool:
        """Whether a job finished a stage."""
        here = (job_stages.c.job_id == job_id, job_stages.c.name == stage)
        query = sa.select(job_stages.c.state).where(*here)
        return await self._database.persist(lambda connection: connection.scalar(query)) == StageState.DONE

    async def record(self, place: Place, result: Result) -> None:
        """Write a finished part; writing it again replaces it."""
        names = {"job_id": place.job_id, "stage": place.stage, "part": place.part}
        values: dict[str, Any] = {name: getattr(result, name) for name in Result.__slots__}
        where = [stage_results.c[name] == value for name, value in names.items()]

        def write(connection: sa.Connection) -> None:
            if not connection.execute(sa.update(stage_results).where(*where).values(**values)).rowcount:
                connection.execute(sa.insert(stage_results).values(**names, **values))

        await self._database.persist(write)

    async def _first(self, query: "sa.Select[Any]") -> Result | None:
        row = await self._database.persist(lambda connection: connection.execute(query).first())
        if row is None:
            return None
        found = Result(**{**row._mapping, "origin": Origin(row.origin)})
        return found if await self._is_whole(json.loads(found.value)) else None

    async def _is_whole(self, value: JsonValue) -> bool:
        return all(await asyncio.gather(*(self._artifacts.exists(ref) for ref in json_refs(value))))


def summary(job_id: str, stage: str, *, failed_cpu_s: float, failed_gpu_s: float) -> Mapping[str, Any]:
    """Columns of a stage's row that follow from its results, and from what parts without one took."""
    here = (stage_results.c.job_id == job_id, stage_results.c.stage == stage)
    foreign = sa.func.coalesce(sa.func.sum(sa.case((stage_results.c.origin == Origin.MADE, 0), else_=1)), 0)
    return {
        "parts_cached": sa.select(foreign).where(*here).scalar_subquery(),
        "cpu_s": _total(stage_results.c.cpu_s, *here) + failed_cpu_s,
        "gpu_s": _total(stage_results.c.gpu_s, *here) + failed_gpu_s,
    }


def job_totals(job_id: str) -> Mapping[str, Any]:
    """Columns of a job's row that follow from its results and its stages' rows, as subqueries."""
    made, failed = stage_results.c.job_id == job_id, job_stages.c.job_id == job_id
    return {
        "cpu_s": _total(stage_results.c.cpu_s, made) + _total(job_stages.c.failed_cpu_s, failed),
        "gpu_s": _total(stage_results.c.gpu_s, made) + _total(job_stages.c.failed_gpu_s, failed),
    }


def _total(column: "sa.Column[float]", *here: sa.ColumnElement[bool]) -> "sa.ScalarSelect[float]":
    return sa.select(sa.func.coalesce(sa.func.sum(column), 0.0)).where(*here).scalar_subquery()
