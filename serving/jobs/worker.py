"""JobWorker: takes jobs from the queue and runs their graphs; one Ray Serve replica, built by graphs.app.

The one invariant: every job a worker takes up ends in a final state, unless the worker itself goes away, in
which case another one (or the next start of the mesh) resumes it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

import structlog

from serving import telemetry
from serving.artifacts.store import ArtifactStore
from serving.errors import BadInput, EngineFailed, ReelmeshError
from serving.jobs.database import AWAY, BackOff, Database, away_text
from serving.jobs.dead import REDRIVE, WorkersLost, is_dead_end
from serving.jobs.journal import Journal, RunLost
from serving.jobs.line import Line
from serving.jobs.membership import Membership, new_worker_id
from serving.jobs.records import JobError, JobRecord
from serving.jobs.run import CancelledByUser, Runs, cancel_all, end_of
from serving.jobs.slots import Slots
from serving.jobs.types import JobState, JobType
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

_NOT_CONCLUDED: Final = JobError(
    code="internal", message="its end could not be written as it was; the worker's log says why", fix=REDRIVE
)


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
        self._runs = Runs()
        self._claimed: dict[str, JobRecord] = {}
        self._at_work: set[str] = set()
        self._strays: set[str] = set()
        self._taking: asyncio.Task[bool] | None = None
        self._line_trouble: BackOff | None = None
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
        self._slots = Slots(own.concurrent_jobs)
        self._executor = Executor(self._database, worker, self._run_job)
        try:
            await self._executor.start()
        except BaseException:
            await self._membership.leave()
            await self._database.close()
            raise
        await self._take_over(first=True)
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
        await cancel_all(self._keepers)
        if self._taking is not None:
            # A claim is one step for the database: it is let to its end, or the job would wait for the next worker.
            await asyncio.wait({self._taking}, timeout=TAKE_S)
        await self._runs.close()
        await self._executor.stop()
        try:
            await self._journal.requeue(self.id, lost=False)
        except Exception:  # whoever takes over does it in its stead, once the lock is free
            log.exception("requeue_failed", worker=self.id)
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
        return {"running_jobs": float(len(self._runs.ids))}

    async def _keep(self, name: str, period_s: float, work: Callable[[], Awaitable[None]]) -> None:
        """Repeat ``work`` for ever; a failure is logged and the next turn comes as usual."""
        while True:
            await asyncio.sleep(period_s)
            try:
                await work()
            except AWAY as error:
                log.warning("keeper_failed", keeper=name, worker=self.id, error=away_text(error))
            except Exception:
                log.exception("keeper_failed", keeper=name, worker=self.id)

    async def _beat(self) -> None:
        await self._membership.beat()
        await self._compare()
        await self._take_over()

    async def _compare(self) -> None:
        """Make what runs here and what the database has as this worker's the same."""
        running = set(self._runs.ids)
        owned = await self._journal.owned()
        for job_id in running - owned:
            self._runs.lose(job_id)
        # A claim whose answer was lost is nobody's; one that is just being answered is not there the second time.
        strays = owned - running - self._claimed.keys() - self._at_work
        for job_id in strays & self._strays:
            await self._line.put_back(job_id)
        self._strays = strays

    async def _take_over(self, *, first: bool = False) -> None:
        lost = await self._membership.dead()
        for worker in lost:
            # Rows first: what the worker takes up after them, should it live on, the executor brings back all the same.
            jobs = await self._journal.requeue(worker)
            await self._executor.take_over(worker)
            await self._membership.forget(worker)
            log.warning("worker_lost", lost=worker, jobs=jobs)
        if (first or lost) and (strays := await self._journal.settle_strays()):
            log.warning("strays_settled", jobs=strays)

    async def _watch_cancels(self) -> None:
        if not (running := self._runs.ids):
            return
        for job_id in await self._journal.to_cancel(running):
            self._runs.cancel(job_id)

    async def _serve_line(self, poll_s: float) -> None:
        """Take the next job whenever a slot is free."""
        while True:
            await self._slots.wait()
            self._taking = asyncio.create_task(self._take(), name="take")
            if not await asyncio.shield(self._taking):
                trouble = self._line_trouble
                await asyncio.sleep(poll_s if trouble is None else max(poll_s, trouble.next_s()))

    async def _take(self) -> bool:
        """Claim a job for a slot that is held and start it; the slot is given back if there is none."""
        record: JobRecord | None = None
        try:
            record = await self._line.claim()
            self._line_trouble = None
            if record is not None:
                self._claimed[record.id] = record
                if await self._executor.start_job(record.id):
                    return True
        except Exception as error:
            # Whatever it was, the job goes back into the line and the next look comes after a pause.
            self._line_trouble = self._line_trouble or BackOff()
            away = away_text(error) if isinstance(error, AWAY) else None
            log.warning("claim_failed", worker=self.id, job_id=record and record.id, error=away, exc_info=away is None)
            if record is not None:
                await self._line.put_back(record.id)
        if record is None or self._claimed.pop(record.id, None) is not None:
            self._slots.release()
        return False

    async def _run_job(self, job_id: str) -> str:
        """The body of the workflow: run one job to a final state and return that state."""
        if job_id in self._runs.ids:
            # It was lost and has come back here; its old run, once stopped, hands it back to come again.
            self._runs.lose(job_id)
            raise asyncio.CancelledError
        record = self._claimed.pop(job_id, None)
        if record is None:  # it ran on another worker before and is late as it is: it waits for no slot
            self._slots.take()
        else:  # the only way in which a job starts for the first time
            waited = time.time() - record.created_at
            telemetry.JOB_WAIT_SECONDS.labels(record.type, record.lane).observe(waited)
        self._at_work.add(job_id)
        try:
            if self._stopping:
                raise asyncio.CancelledError
            return await self._run_taken(record or await self._journal.begin(job_id))
        except RunLost:
            log.warning("run_lost", worker=self.id, job_id=job_id)
            await self._executor.hand_back(job_id)
            raise asyncio.CancelledError from None
        finally:
            self._at_work.discard(job_id)
            self._slots.release()

    async def _run_taken(self, record: JobRecord | None) -> str:
        if record is None:
            return "nothing to do"
        with telemetry.job_logs(record.id, ""):
            log.info("job_started", job_type=record.type, run=record.runs)
            try:
                state = await self._conclude(record)
            except Exception:
                # Nothing may escape: the executor would hold the job as ended, and nobody would bring it back.
                log.exception("job_not_concluded")
                state = await self._journal.finish(record.id, JobState.FAILED, error=_NOT_CONCLUDED, dead=True)
            seconds = time.time() - record.created_at
            telemetry.JOBS_FINISHED.labels(record.type, state).inc()
            telemetry.JOB_SECONDS.labels(record.type, state).observe(seconds)
            log.info("job_ended", state=state, seconds=round(seconds, 3))
        return state

    async def _conclude(self, record: JobRecord) -> JobState:
        if record.cancel_requested:
            return await self._journal.finish(record.id, JobState.CANCELLED)
        context: DurableContext | None = None
        try:
            job_type, context = self._prepare(record)
            output = await self._runs.run(record, job_type, context)
        except CancelledByUser:
            return await self._journal.finish(record.id, JobState.CANCELLED)
        except ReelmeshError as error:
            stage = context.failed_stage if context else record.stage
            dead = is_dead_end(error)
            told = JobError.of(error, stage=stage, fix=REDRIVE if dead else None)
            return await self._journal.finish(record.id, JobState.FAILED, error=told, dead=dead)
        return await self._journal.finish(record.id, JobState.COMPLETED, output=output)

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
            deadline_unix_s=end_of(record),
            parallel_calls=self._settings.worker.parallel_calls,
        )
        return job_type, context
