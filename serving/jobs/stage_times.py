"""How long stages take, measured: whether one still fits before a deadline, and how long whole jobs will run.

Used by the job context and the forecast. The one invariant: what was never measured is not held against a job.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from serving.errors import DeadlineExceeded
from serving.jobs.database import Database
from serving.jobs.records import StageState
from serving.jobs.tables import job_stages, jobs
from serving.jobs.types import JobState

SAMPLES: Final = 50
"""The newest finished runs of a stage that count."""
JOBS: Final = 500
"""The newest completed jobs, of whatever type, that count."""


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


@dataclass(frozen=True, slots=True)
class Measured:
    """What the newest completed jobs of each type took on average.

    Attributes:
        stage_s: by type and stage, in the stages' order: the seconds that a stage adds to the run of a job that does
            it. Of stages that run side by side, one counts for what it went on after those before it.
        cost_s: by type: seconds of CPU and GPU; the time they ran where they told none.
    """

    stage_s: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    cost_s: Mapping[str, float] = field(default_factory=dict)

    def run_s(self, job_type: str, from_stage: str | None = None, stop_at: str | None = None) -> float | None:
        """How long a job will run that does the stages between these two; None where nothing was ever measured.

        A type of which no job was measured takes as long as others do on average.
        """
        if (stages := self.stage_s.get(job_type)) is not None:
            return sum(stages[name] for name in _between(list(stages), from_stage, stop_at))
        return statistics.fmean(sum(each.values()) for each in self.stage_s.values()) if self.stage_s else None

    def left_s(self, job_type: str, stages: Sequence["sa.Row[Any]"], stop_at: str | None, now: float) -> float:
        """How long a running job will still run, by the stages it still has.

        Args:
            job_type: its type.
            stages: its stages in order: ``name``, ``state`` and ``started_at``.
            stop_at: its last stage.
            now: Unix seconds.
        """
        expected = self.stage_s.get(job_type, {})
        to_do = _between([stage.name for stage in stages], None, stop_at)
        begun = max((index for index, stage in enumerate(stages) if stage.started_at is not None), default=-1)
        left = 0.0
        for index, stage in enumerate(stages[: len(to_do)]):
            if stage.state == StageState.RUNNING:
                left += max(0.0, expected.get(stage.name, 0.0) - (now - stage.started_at))
            elif index > begun:  # one that waits before a stage that began was left out by the graph
                left += expected.get(stage.name, 0.0)
        return left


def measure(connection: sa.Connection) -> Measured:
    """Means over the newest completed jobs."""
    columns = ("id", "type", "started_at", "finished_at", "cpu_s", "gpu_s", "from_stage", "stop_at")
    query = (
        sa.select(*(jobs.c[name] for name in columns))
        .where(jobs.c.state == JobState.COMPLETED, jobs.c.started_at.is_not(None))
        .order_by(jobs.c.id.desc())
        .limit(JOBS)
    )
    newest = connection.execute(query).all()
    stages = stages_of(connection, [row.id for row in newest])
    times: dict[str, dict[str, list[float]]] = {}
    costs: dict[str, list[float]] = {}
    for row in newest:
        of_type = times.setdefault(row.type, {stage.name: [] for stage in stages[row.id]})
        for name, added_s in _added(row, stages[row.id]).items():
            of_type.setdefault(name, []).append(added_s)
        costs.setdefault(row.type, []).append(row.cpu_s + row.gpu_s)
    means = {kind: {name: _mean(all_) for name, all_ in of_type.items()} for kind, of_type in times.items()}
    return Measured(means, {kind: _mean(all_) or sum(means[kind].values()) for kind, all_ in costs.items()})


def stages_of(connection: sa.Connection, job_ids: Sequence[str]) -> dict[str, list["sa.Row[Any]"]]:
    """The stages of some jobs, in their order."""
    columns = ("job_id", "name", "position", "state", "started_at", "ended_at")
    query = sa.select(*(job_stages.c[name] for name in columns)).where(job_stages.c.job_id.in_(job_ids))
    found: dict[str, list[sa.Row[Any]]] = {job_id: [] for job_id in job_ids}
    for row in connection.execute(query):
        found[row.job_id].append(row)
    return {job_id: sorted(rows, key=lambda row: int(row.position)) for job_id, rows in found.items()}


def _added(job: "sa.Row[Any]", stages: Sequence["sa.Row[Any]"]) -> dict[str, float]:
    """What each stage that a job was to do added to its run, in seconds; together they are the whole run."""
    names = _between([stage.name for stage in stages], job.from_stage, job.stop_at)
    ends = {stage.name: stage.ended_at for stage in stages}
    at, added = job.started_at, dict[str, float]()
    for name in names:
        end = max(at, (job.finished_at if name == names[-1] else ends[name]) or at)
        added[name], at = end - at, end
    return added


def _between(stages: Sequence[str], first: str | None, last: str | None) -> Sequence[str]:
    """The stages from one to another, both included; from the beginning, or to the end, where one is not there."""
    begin = stages.index(first) if first in stages else 0
    return stages[begin : stages.index(last) + 1 if last in stages else None]


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0
