"""Journal: what a worker writes about the jobs it runs; used by the worker and the job context alone.

The one invariant: each write is one transaction that may be repeated: a resumed run writes the same facts again,
and a database that is away for a while costs a running job nothing but time; a worker that lost a job, and may not
know it yet, writes nothing about it any more.
"""

import math
import time
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, Final

import sqlalchemy as sa

from serving.jobs.database import Database
from serving.jobs.dead import REDRIVE
from serving.jobs.line import UNSTARTED, take_up
from serving.jobs.queue import Workflow, workflows
from serving.jobs.records import JobError, JobRecord, StageRecord, StageState
from serving.jobs.refs import refs_in
from serving.jobs.results import job_totals, summary
from serving.jobs.states import FINAL, WORKING
from serving.jobs.tables import change_job, job_stages, jobs
from serving.jobs.types import JobOutput, JobState
from serving.protocol.artifact import ArtifactRef

_OPEN_STAGES: Final = (StageState.WAITING, StageState.RUNNING)
MAX_STAGE_ARTIFACTS: Final = 64
"""Artifacts listed per stage; a podcast of 500 turns makes a thousand clips."""
MAX_STAGE_REPLICAS: Final = 32
"""Replicas listed per stage."""


class RunLost(BaseException):
    """The job is no longer this worker's, so the run must stop; as a cancel, it passes through graphs and engines."""


class Journal:
    """Writes one worker's facts; whatever it says about a job that is no longer the worker's raises :class:`RunLost`.

    Args:
        database: opened, with its tables made.
        worker: the worker's id.
    """

    def __init__(self, database: Database, worker: str) -> None:
        self.database = self._database = database
        self._worker = worker

    async def begin(self, job_id: str) -> JobRecord | None:
        """Take a job up; None when there is nothing to do any more (cancelled or ended meanwhile)."""
        return await self._database.persist(
            lambda connection: take_up(connection, job_id, self._worker), patience_s=math.inf
        )

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
            event = {"stage_state": StageState.RUNNING, **counts}
            forward = partial(self._change, connection, job_id, kind="stage", event=event)
            if not forward(values={"stage": stage, "state": state}) and not forward(values={"stage": stage}):
                raise RunLost(job_id)
            _update_stage(connection, job_id, stage, values)

        await self._database.persist(write)

    async def stage_advanced(self, job_id: str, stage: str, facts: "StageFacts", *, progress: float | None) -> None:
        """A call of the stage has finished; with ``progress`` the bar moves, which makes an event."""
        row, counts = facts.row(), facts.counts()
        # Calls end in parallel, and so do these writes: one that comes late must not turn the count back.
        earlier = job_stages.c.parts_done < counts["parts_done"]

        def write(connection: sa.Connection) -> None:
            if progress is not None:
                moved = {"progress": _at_least(progress)}
                event = {"stage": stage, **counts}
                if not self._change(connection, job_id, kind="progress", values=moved, event=event):
                    raise RunLost(job_id)
            _update_stage(connection, job_id, stage, row, earlier, self._owned(job_id))

        await self._database.persist(write)

    async def stage_ended(
        self, job_id: str, stage: str, outcome: StageState, facts: "StageFacts", *, progress: float
    ) -> None:
        """The stage is done, skipped or failed; repeating it changes nothing."""
        now, counts = time.time(), facts.counts()
        ended = {"state": outcome, "ended_at": now, **facts.row(), **facts.failed_costs()}
        ended |= summary(job_id, stage, **facts.failed_costs())
        if outcome is not StageState.SKIPPED:
            # A stage that found all its results at once never said that it started.
            ended["started_at"] = sa.func.coalesce(job_stages.c.started_at, now)

        def write(connection: sa.Connection) -> None:
            is_open = job_stages.c.state.in_(_OPEN_STAGES)
            if not _update_stage(connection, job_id, stage, ended, is_open, self._owned(job_id)):
                if not connection.scalar(sa.select(self._owned(job_id))):
                    raise RunLost(job_id)
                return
            moved = {"progress": _at_least(progress), **job_totals(job_id)}
            event = {"stage": stage, "stage_state": outcome, **counts}
            if not self._change(connection, job_id, kind="stage", values=moved, event=event):
                raise RunLost(job_id)

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
    ) -> JobState:
        """Put a job into a final state, and with ``dead`` among the dead letters; the state.

        It waits for the database as long as it takes: a job whose end is not written would be lost.
        """
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

        def write(connection: sa.Connection) -> None:
            if self._change(connection, job_id, kind="state", values=values, event=event):
                _close_stages(connection, job_id, leftover)
                return
            own = sa.select(jobs.c.state).where(jobs.c.id == job_id, jobs.c.worker == self._worker)
            if connection.scalar(own) not in FINAL:  # else this very write had been made, and only its answer was lost
                raise RunLost(job_id)

        await self._database.persist(write, patience_s=math.inf)
        return state

    async def owned(self) -> set[str]:
        """The jobs that this worker is at, as the database has it."""
        query = sa.select(jobs.c.id).where(jobs.c.worker == self._worker, jobs.c.state.in_(list(WORKING)))
        return await self._database.persist(lambda connection: set(connection.scalars(query)))

    async def requeue(self, worker: str, *, lost: bool = True) -> list[str]:
        """Send the unfinished jobs of a worker back to the queue; their ids.

        Args:
            worker: whose jobs; one that took a job up meanwhile keeps it.
            lost: it died; a run that ended because its worker was stopped on purpose does not count against the job.
        """
        reason = "its worker was lost" if lost else "its worker was stopped"
        back: dict[str, Any] = {"state": JobState.QUEUED, "worker": None}
        if not lost:
            back["runs"] = jobs.c.runs - 1

        def write(connection: sa.Connection) -> list[str]:
            query = sa.select(jobs.c.id).where(jobs.c.worker == worker, jobs.c.state.in_(list(WORKING)))
            found = [str(job_id) for job_id in connection.scalars(query)]
            for job_id, workflow in workflows(connection, found).items():
                change = partial(change_job, connection, job_id, kind="state", among=WORKING, worker=worker)
                if workflow is Workflow.ENDED:
                    _give_up(connection, job_id, worker=worker)
                else:  # where there is no workflow, nothing but the line brings it back
                    change(values=UNSTARTED if workflow is Workflow.NONE else back, event={"reason": reason})
            return found

        return await self._database.persist(write)

    async def settle_strays(self) -> list[str]:
        """Give jobs that wait to be resumed, though nothing resumes them, a place in line or an end; their ids."""

        def write(connection: sa.Connection) -> list[str]:
            waiting = (jobs.c.state == JobState.QUEUED, jobs.c.started_at.is_not(None))
            found = [str(job_id) for job_id in connection.scalars(sa.select(jobs.c.id).where(*waiting))]
            strays = {
                job_id: each for job_id, each in workflows(connection, found).items() if each is not Workflow.OPEN
            }
            for job_id, workflow in strays.items():
                if workflow is Workflow.ENDED:
                    _give_up(connection, job_id)
                else:
                    fresh, event = {"started_at": None}, {"reason": "nobody would have resumed it: it is back in line"}
                    change_job(connection, job_id, kind="state", among=(JobState.QUEUED,), values=fresh, event=event)
            return list(strays)

        return await self._database.persist(write)

    async def to_cancel(self, job_ids: Collection[str]) -> list[str]:
        """Which of the jobs somebody asked to cancel."""
        query = sa.select(jobs.c.id).where(jobs.c.id.in_(list(job_ids)), jobs.c.cancel_requested)
        return await self._database.persist(lambda connection: [str(found) for found in connection.scalars(query)])

    def _change(
        self, connection: sa.Connection, job_id: str, *, kind: str, values: Mapping[str, Any], event: Mapping[str, Any]
    ) -> bool:
        """Change a job that this worker is at."""
        own = self._worker
        return change_job(connection, job_id, kind=kind, among=WORKING, values=values, event=event, worker=own)

    def _owned(self, job_id: str) -> sa.ColumnElement[bool]:
        here = (jobs.c.id == job_id, jobs.c.worker == self._worker, jobs.c.state.in_(list(WORKING)))
        return sa.exists().where(*here)


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
        self.failed_cpu_s = self.failed_gpu_s = 0.0
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

    def failed_costs(self) -> dict[str, float]:
        """What was spent on parts that have no result, as columns of the stage."""
        return {"failed_cpu_s": self.failed_cpu_s, "failed_gpu_s": self.failed_gpu_s}

    def row(self) -> dict[str, Any]:
        """As columns of the stage."""
        return {
            **self.counts(),
            "tries": self.tries,
            "models": list(self.models),
            "replicas": list(self.replicas),
            "artifacts": [ref.model_dump(mode="json") for ref in self.artifacts.values()],
        }


def _give_up(connection: sa.Connection, job_id: str, *, worker: str | None = None) -> None:
    """Make a dead letter of a job that the executor holds as ended, though its end was never written."""
    now, told = time.time(), JobError(code="internal", message="its end could not be written", fix=REDRIVE)
    values = {"state": JobState.FAILED, "finished_at": now, "dead_at": now, "error": told.model_dump(mode="json")}
    among = (JobState.QUEUED, *WORKING)
    event = {"reason": str(told)}
    if change_job(connection, job_id, kind="state", among=among, values=values, event=event, worker=worker):
        _close_stages(connection, job_id, StageState.WAITING)


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
