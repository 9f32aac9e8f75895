"""Journal: what a worker writes about the jobs it runs; used by the worker and the job context alone.

The one invariant: each write is one transaction that may be repeated: a resumed run writes the same facts again,
and a database that is away for a while costs a running job nothing but time.
"""

import time
from collections.abc import Collection
from typing import Any, Final

import sqlalchemy as sa

from serving.jobs.database import Database
from serving.jobs.line import take_up
from serving.jobs.queue import without_workflow
from serving.jobs.records import JobError, JobRecord, StageRecord, StageState
from serving.jobs.refs import refs_in
from serving.jobs.results import job_totals, summary
from serving.jobs.states import WORKING, sources_of
from serving.jobs.tables import change_job, job_stages, jobs
from serving.jobs.types import JobOutput, JobState
from serving.protocol.artifact import ArtifactRef

_RUNNABLE: Final = (JobState.QUEUED, *WORKING)
_OPEN_STAGES: Final = (StageState.WAITING, StageState.RUNNING)
MAX_STAGE_ARTIFACTS: Final = 64
"""Artifacts listed per stage; a podcast of 500 turns makes a thousand clips."""
MAX_STAGE_REPLICAS: Final = 32
"""Replicas listed per stage."""


class Journal:
    """Writes one worker's facts.

    Args:
        database: opened, with its tables made.
        worker: the worker's id.
    """

    def __init__(self, database: Database, worker: str) -> None:
        self.database = self._database = database
        self._worker = worker

    async def begin(self, job_id: str) -> JobRecord | None:
        """Take a job up; None when there is nothing to do any more (cancelled or ended meanwhile)."""
        return await self._database.persist(lambda connection: take_up(connection, job_id, self._worker))

    async def stage_started(self, job_id: str, stage: str, state: JobState, facts: "StageFacts") -> None:
        """The first call of a stage is about to be made, or the first after the stage had ended."""
        counts = facts.counts()

        def write(connection: sa.Connection) -> None:
            values = {
                "state": StageState.RUNNING,
                "parts": counts["parts"],
                "started_at": sa.func.coalesce(job_stages.c.started_at, time.time()),
                "ended_at": None,
            }
            _update_stage(connection, job_id, stage, values)
            forward: dict[str, Any] = {"stage": stage}
            current = connection.scalar(sa.select(jobs.c.state).where(jobs.c.id == job_id))
            if current in sources_of(state):
                forward["state"] = state
            event = {"stage_state": StageState.RUNNING, **counts}
            change_job(connection, job_id, kind="stage", among=WORKING, values=forward, event=event)

        await self._database.persist(write)

    async def stage_advanced(self, job_id: str, stage: str, facts: "StageFacts", *, progress: float | None) -> None:
        """A call of the stage has finished; with ``progress`` the bar moves, which makes an event."""
        row, counts = facts.row(), facts.counts()
        # Calls end in parallel, and so do these writes: one that comes late must not turn the count back.
        earlier = job_stages.c.parts_done < counts["parts_done"]

        def write(connection: sa.Connection) -> None:
            _update_stage(connection, job_id, stage, row, earlier)
            if progress is not None:
                moved = {"progress": _at_least(progress)}
                event = {"stage": stage, **counts}
                change_job(connection, job_id, kind="progress", among=WORKING, values=moved, event=event)

        await self._database.persist(write)

    async def stage_ended(
        self, job_id: str, stage: str, outcome: StageState, facts: "StageFacts", *, progress: float
    ) -> None:
        """The stage is done, skipped or failed; repeating it changes nothing."""
        now, counts = time.time(), facts.counts()
        ended = {"state": outcome, "ended_at": now, **facts.row(), **summary(job_id, stage)}
        if outcome is not StageState.SKIPPED:
            # A stage that found all its results at once never said that it started.
            ended["started_at"] = sa.func.coalesce(job_stages.c.started_at, now)

        def write(connection: sa.Connection) -> None:
            if not _update_stage(connection, job_id, stage, ended, job_stages.c.state.in_(_OPEN_STAGES)):
                return
            moved = {"progress": _at_least(progress), **job_totals(job_id)}
            event = {"stage": stage, "stage_state": outcome, **counts}
            change_job(connection, job_id, kind="stage", among=WORKING, values=moved, event=event)

        await self._database.persist(write)

    async def finish(
        self,
        job_id: str,
        state: JobState,
        *,
        output: JobOutput | None = None,
        error: JobError | None = None,
        reason: str | None = None,
        dead: bool = False,
    ) -> bool:
        """Put a job into a final state, and with ``dead`` among the dead letters; False when it was in one already."""
        leftover = {
            JobState.COMPLETED: StageState.SKIPPED,
            JobState.FAILED: StageState.WAITING,
            JobState.CANCELLED: StageState.CANCELLED,
        }[state]
        now = time.time()
        values: dict[str, Any] = {"state": state, "finished_at": now, "dead_at": now if dead else None}
        if state is JobState.COMPLETED:
            values["progress"] = 1.0
        if output is not None:
            values["output"] = output.model_dump(mode="json")
        if error is not None:
            values["error"] = error.model_dump(mode="json")

        event = {"reason": reason or (str(error) if error else None)}

        def write(connection: sa.Connection) -> bool:
            if not change_job(connection, job_id, kind="state", among=_RUNNABLE, values=values, event=event):
                return False
            _close_stages(connection, job_id, leftover)
            return True

        return await self._database.persist(write)

    async def requeue(self, worker: str, *, lost: bool = True) -> list[str]:
        """Send the unfinished jobs of a worker back to the queue; their ids.

        Args:
            worker: whose jobs.
            lost: it died; a run that ended because its worker was stopped on purpose does not count against the job.
        """

        def write(connection: sa.Connection) -> list[str]:
            query = sa.select(jobs.c.id).where(jobs.c.worker == worker, jobs.c.state.in_(list(WORKING)))
            found = [str(job_id) for job_id in connection.scalars(query)]
            unstarted = set(without_workflow(connection, found))
            event = {"reason": "its worker was lost" if lost else "its worker was stopped"}
            for job_id in found:
                back: dict[str, Any] = {"state": JobState.QUEUED, "worker": None}
                if job_id in unstarted:  # nothing but the line brings it back
                    back |= {"started_at": None, "runs": jobs.c.runs - 1}
                elif not lost:
                    back["runs"] = jobs.c.runs - 1
                change_job(connection, job_id, kind="state", among=WORKING, values=back, event=event)
            return found

        return await self._database.persist(write)

    async def to_cancel(self, job_ids: Collection[str]) -> list[str]:
        """Which of the jobs somebody asked to cancel."""
        query = sa.select(jobs.c.id).where(jobs.c.id.in_(list(job_ids)), jobs.c.cancel_requested)
        return await self._database.persist(lambda connection: [str(found) for found in connection.scalars(query)])


class StageFacts:
    """What is known of a stage while it runs; kept by the context, written by the journal.

    Args:
        known: the stage as an earlier run left it; counts start anew, since finished calls are counted on
            replay.
    """

    def __init__(self, known: StageRecord | None = None) -> None:
        self.parts = 0
        self.parts_done = 0
        self.tries = known.tries if known else 0
        self.models: list[str] = list(known.models) if known else []
        self.replicas: list[str] = list(known.replicas or ()) if known else []
        self.artifacts: dict[str, ArtifactRef] = {}

    def add_artifacts(self, result: object) -> None:
        """List what a result refers to, up to :data:`MAX_STAGE_ARTIFACTS`."""
        for ref in refs_in(result, limit=MAX_STAGE_ARTIFACTS):
            if len(self.artifacts) < MAX_STAGE_ARTIFACTS:
                self.artifacts.setdefault(ref.sha256, ref)

    def add_server(self, model: str | None, replica: str | None) -> None:
        """Note who served a call."""
        if model and model not in self.models:
            self.models.append(model)
        if replica and replica not in self.replicas and len(self.replicas) < MAX_STAGE_REPLICAS:
            self.replicas.append(replica)

    def counts(self) -> dict[str, int]:
        """The counts, as columns of the stage and of its events."""
        return {"parts": self.parts, "parts_done": self.parts_done}

    def row(self) -> dict[str, Any]:
        """As columns of the stage."""
        return {
            **self.counts(),
            "tries": self.tries,
            "models": list(self.models),
            "replicas": list(self.replicas),
            "artifacts": [ref.model_dump(mode="json") for ref in self.artifacts.values()],
        }


def _at_least(progress: float) -> sa.ColumnElement[float]:
    return sa.case((jobs.c.progress < progress, progress), else_=jobs.c.progress)


def _update_stage(
    connection: sa.Connection,
    job_id: str,
    stage: str,
    values: dict[str, Any],
    *conditions: sa.ColumnElement[bool],
) -> bool:
    here = (job_stages.c.job_id == job_id, job_stages.c.name == stage, *conditions)
    return connection.execute(sa.update(job_stages).where(*here).values(**values)).rowcount > 0


def _close_stages(connection: sa.Connection, job_id: str, leftover: StageState) -> None:
    """Give stages that never ended an end that fits the job's."""
    running = StageState.CANCELLED if leftover is StageState.CANCELLED else StageState.FAILED
    here = job_stages.c.job_id == job_id
    waiting = (here, job_stages.c.state == StageState.WAITING)
    connection.execute(sa.update(job_stages).where(*waiting).values(state=leftover))
    open_ = (here, job_stages.c.state == StageState.RUNNING)
    connection.execute(sa.update(job_stages).where(*open_).values(state=running, ended_at=time.time()))
