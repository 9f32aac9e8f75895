"""JobWorker: takes jobs from the queue and runs their graphs; one Ray Serve replica, built by graphs.app.

The one invariant: every job a worker takes up ends in a final state, unless the worker itself goes away, in
which case another one (or the next start of the mesh) resumes it.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import structlog
from pydantic import ValidationError

from serving import telemetry
from serving.artifacts.store import ArtifactStore
from serving.errors import BadInput, DeadlineExceeded, EngineFailed, ReelmeshError, foreign_text
from serving.jobs.database import Database
from serving.jobs.dead import REDRIVE, WorkersLost, is_dead_end
from serving.jobs.journal import Journal
from serving.jobs.line import Line
from serving.jobs.membership import Membership, new_worker_id
from serving.jobs.records import JobError, JobRecord
from serving.jobs.types import JobOutput, JobState, JobType, StoppedEarly
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.jobs.context import DurableContext, Runner

log = structlog.get_logger()

MAX_RUNS: Final = 5
"""A job whose worker was lost this often is given up: it is likely to be what kills them."""
CANCEL_POLL_S: Final = 0.25
"""How often a worker asks whether one of its jobs is to be cancelled."""
TAKE_S: Final = 5.0
"""How long a worker that stops waits for a claim in flight."""
CANCEL_GRACE_S: Final = 1.0
"""How long a cancelled graph may take to unwind before the job is called cancelled without it."""


class JobWorker:
    """Runs jobs; ``await JobWorker.start(...)`` outside Ray, ``async __init__`` inside.

    Args:
        settings: resolved.
        catalog: every job type by name.
        runner: runs the stages' typed requests: the router.
    """

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits async constructors
        self, settings: Settings, catalog: Mapping[str, JobType], runner: "Runner"
    ) -> None:
        self._set_up(settings, catalog, runner)
        await self._start()

    @classmethod
    async def start(cls, settings: Settings, catalog: Mapping[str, JobType], runner: "Runner") -> "JobWorker":
        """Make a worker where nobody awaits constructors."""
        worker = cls.__new__(cls)
        worker._set_up(settings, catalog, runner)
        await worker._start()
        return worker

    def _set_up(self, settings: Settings, catalog: Mapping[str, JobType], runner: "Runner") -> None:
        telemetry.set_up_logs(settings)
        self._settings = settings
        self._catalog = dict(catalog)
        self._runner = runner
        self._artifacts = ArtifactStore.of(settings)
        self._running: dict[str, asyncio.Task[JobOutput]] = {}
        self._cancel_asked: dict[str, asyncio.Future[None]] = {}
        self._claimed: dict[str, JobRecord] = {}
        self._taking: asyncio.Task[bool] | None = None
        self._stopping = False
        self._keepers: list[asyncio.Task[None]] = []
        # Ray Serve awaits the instance's __del__ when it drains the replica; Python only looks at the class.
        self.__del__ = self.shutdown

    async def _start(self) -> None:
        from serving.jobs.executor import Executor  # imports DBOS, which only a running worker needs

        worker = self.id = new_worker_id()
        self._database = Database(self._settings.jobs_database_url)
        await self._database.create()
        self._journal = Journal(self._database, worker)
        own = self._settings.worker
        folder = self._settings.home / "workers"
        self._membership = Membership(self._database, worker, folder, silent_s=own.silent_s)
        await self._membership.join()
        self._line = Line(self._database, worker)
        self._slots = asyncio.Semaphore(own.concurrent_jobs)
        self._executor = Executor(self._database, worker, self._run_job, concurrent_jobs=own.concurrent_jobs)
        try:
            await self._executor.start()
        except BaseException:
            await self._membership.leave()
            await self._database.close()
            raise
        await self._take_over()
        self._keepers = [
            asyncio.create_task(self._keep("heartbeat", own.beat_s, self._beat)),
            asyncio.create_task(self._keep("cancel_watch", CANCEL_POLL_S, self._watch_cancels)),
            asyncio.create_task(self._serve_line(own.poll_s)),
        ]
        log.info("worker_started", worker=worker, job_types=sorted(self._catalog))

    async def shutdown(self) -> None:
        """Stop; running jobs stay unfinished and are resumed by whoever comes next. Safe to call twice."""
        if self._stopping:
            return
        self._stopping = True
        await _cancel_all(self._keepers)
        if self._taking is not None:
            # A claim is one step for the database: it is let to its end, or the job would wait for the next worker.
            await asyncio.wait({self._taking}, timeout=TAKE_S)
        await _cancel_all(self._running.values())
        await self._executor.stop()
        await self._journal.requeue(self.id, lost=False)
        await self._membership.leave()
        await self._database.close()
        log.info("worker_stopped", worker=self.id)

    async def check_health(self) -> None:
        """Called by Ray Serve; raises when a keeper has died."""
        for keeper in self._keepers:
            if keeper.done():
                raise EngineFailed(f"the worker's {keeper.get_name()} ended")

    async def metrics(self) -> tuple[str, str]:
        """The worker's id and its process's metrics; the gateway asks, since a worker listens on no port."""
        return self.id, telemetry.exposition()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Ray Serve: how many jobs this worker runs."""
        return {"running_jobs": float(len(self._running))}

    async def _keep(self, name: str, period_s: float, work: Callable[[], Awaitable[None]]) -> None:
        """Repeat ``work`` for ever; a failure is logged and the next turn comes as usual."""
        while True:
            await asyncio.sleep(period_s)
            try:
                await work()
            except Exception:
                log.exception("keeper_failed", keeper=name, worker=self.id)

    async def _beat(self) -> None:
        await self._membership.beat()
        await self._take_over()

    async def _take_over(self) -> None:
        for worker in await self._membership.dead():
            await self._executor.take_over(worker)
            jobs = await self._journal.requeue(worker)
            await self._membership.forget(worker)
            log.warning("worker_lost", lost=worker, jobs=jobs)

    async def _watch_cancels(self) -> None:
        if not self._running:
            return
        for job_id in await self._journal.to_cancel(list(self._running)):
            if (asked := self._cancel_asked.get(job_id)) is not None and not asked.done():
                asked.set_result(None)

    async def _serve_line(self, poll_s: float) -> None:
        """Take the next job whenever a slot is free."""
        while True:
            await self._slots.acquire()
            self._taking = asyncio.create_task(self._take(), name="take")
            if not await asyncio.shield(self._taking):
                await asyncio.sleep(poll_s)

    async def _take(self) -> bool:
        """Claim a job for a slot that is held and start it; the slot is given back if there is none."""
        record: JobRecord | None = None
        try:
            record = await self._line.claim()
            if record is not None:
                self._claimed[record.id] = record
                if await self._executor.start_job(record.id):
                    return True
        except Exception:
            # Whatever it was, the job goes back into the line and the next look comes as usual.
            log.exception("claim_failed", worker=self.id, job_id=record and record.id)
            if record is not None:
                await self._line.put_back(record.id)
        if record is None or self._claimed.pop(record.id, None) is not None:
            self._slots.release()
        return False

    async def _run_job(self, job_id: str) -> str:
        """The body of the workflow: run one job to a final state and return that state."""
        record = self._claimed.pop(job_id, None)
        if record is None:  # it comes back after a crash, and has no slot yet
            await self._slots.acquire()
        else:  # the only way in which a job starts for the first time
            waited = time.time() - record.created_at
            telemetry.JOB_WAIT_SECONDS.labels(record.type, record.lane).observe(waited)
        try:
            if self._stopping:
                raise asyncio.CancelledError
            return await self._run_taken(record or await self._journal.begin(job_id))
        finally:
            self._slots.release()

    async def _run_taken(self, record: JobRecord | None) -> str:
        if record is None:
            return "nothing to do"
        with telemetry.job_logs(record.id, ""):
            log.info("job_started", job_type=record.type, run=record.runs)
            state = await self._conclude(record)
            seconds = time.time() - record.created_at
            telemetry.JOBS_FINISHED.labels(record.type, state).inc()
            telemetry.JOB_SECONDS.labels(record.type, state).observe(seconds)
            log.info("job_ended", state=state, seconds=round(seconds, 3))
        return state

    async def _conclude(self, record: JobRecord) -> JobState:
        if record.cancel_requested:
            await self._journal.finish(record.id, JobState.CANCELLED)
            return JobState.CANCELLED
        context: DurableContext | None = None
        try:
            job_type, context = self._prepare(record)
            output = await self._watch(record, job_type, context)
        except _CancelledByUser:
            await self._journal.finish(record.id, JobState.CANCELLED)
            return JobState.CANCELLED
        except ReelmeshError as error:
            stage = context.failed_stage if context else record.stage
            dead = is_dead_end(error)
            told = JobError.of(error, stage=stage, fix=REDRIVE if dead else None)
            await self._journal.finish(record.id, JobState.FAILED, error=told, dead=dead)
            return JobState.FAILED
        await self._journal.finish(record.id, JobState.COMPLETED, output=output)
        return JobState.COMPLETED

    def _prepare(self, record: JobRecord) -> "tuple[JobType, DurableContext]":
        from serving.jobs.context import DurableContext  # imports DBOS

        if record.runs > MAX_RUNS:
            raise WorkersLost(
                f"its worker was lost {MAX_RUNS} times, last in stage {record.stage}",
                fix="look into the worker's log of those times; the job may need more memory than there is",
            )
        if record.type not in self._catalog:
            raise BadInput(f"this worker knows no job type {record.type!r}", field="type")
        job_type = self._catalog[record.type]
        context = DurableContext(
            record,
            job_type,
            journal=self._journal,
            runner=self._runner,
            artifacts=self._artifacts,
            deadline_unix_s=_end_of(record),
            parallel_calls=self._settings.worker.parallel_calls,
        )
        return job_type, context

    async def _watch(self, record: JobRecord, job_type: JobType, context: "DurableContext") -> JobOutput:
        """Run the graph as a task that a cancel, the time limit or the end of this worker can stop."""
        task = asyncio.create_task(_run_graph(record, job_type, context), name=f"job-{record.id}")
        self._running[record.id] = task
        asked = self._cancel_asked[record.id] = asyncio.get_running_loop().create_future()
        try:
            waiting: set[asyncio.Future[Any]] = {task, asked}
            left_s = max(0.0, _end_of(record) - time.time())
            done, _ = await asyncio.wait(waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if asked in done:
                await _stop(task)
                if not task.done() or task.cancelled():
                    raise _CancelledByUser
            elif not done:
                raise _too_late(record)
            if task.cancelled() and not self._stopping:
                raise EngineFailed("the graph was cancelled from within, though nobody asked for it")
            return task.result()
        finally:
            await _stop(task)
            self._running.pop(record.id, None)
            self._cancel_asked.pop(record.id, None)


async def _cancel_all(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    found = list(tasks)
    for task in found:
        task.cancel()
    await asyncio.gather(*found, return_exceptions=True)


def _end_of(record: JobRecord) -> float:
    """When the run must be over, in Unix seconds; a run that is resumed has what is left of its time."""
    end = (record.started_at or time.time()) + record.timeout_s
    return end if record.deadline_at is None else min(end, record.deadline_at)


def _too_late(record: JobRecord) -> DeadlineExceeded:
    if record.deadline_at is not None and record.deadline_at <= time.time():
        return DeadlineExceeded("its deadline passed while it ran", fix="submit it with a later deadline")
    return DeadlineExceeded(
        f"it ran longer than its {record.timeout_s:g} s",
        fix="submit it with a larger timeout_s (`reelmesh submit --timeout`)",
    )


class _CancelledByUser(Exception):
    """The job's task was cancelled because somebody asked."""


async def _run_graph(record: JobRecord, job_type: JobType, context: "DurableContext") -> JobOutput:
    """Run the graph; whatever is raised but a cancel leaves as an error of the mesh."""
    try:
        request = job_type.request.model_validate(record.input)
        output = await job_type.graph(context, request)
    except StoppedEarly:
        return context.so_far()
    except ReelmeshError:
        raise
    except ValidationError as error:
        raise BadInput(f"it no longer fits {job_type.name}: {foreign_text(error)}", field="input") from error
    except Exception as error:
        log.exception("graph_crashed", job_id=record.id)
        raise EngineFailed(f"{type(error).__name__}: {foreign_text(error)}") from error
    if not isinstance(output, JobOutput):
        raise EngineFailed(f"the graph of {job_type.name} returned no JobOutput")
    return output


async def _stop(task: "asyncio.Task[JobOutput]") -> None:
    if not task.done():
        task.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait({task}, timeout=CANCEL_GRACE_S)
