"""DurableContext: the JobContext of graphs on top of DBOS steps; made by the worker for each run of a job.

The one invariant: step numbers are drawn before the first await of a stage, so a resumed run draws the same
ones, and a call whose result DBOS holds is never made again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

import structlog
from dbos import DBOS, StepOptions, StepReservation
from dbos import error as dbos_errors

from serving.artifacts.store import ArtifactStore
from serving.backends.call import Call
from serving.errors import BadInput, EngineFailed, ReelmeshError, TooLarge, foreign_text
from serving.jobs.journal import Journal, StageFacts
from serving.jobs.progress import job_progress
from serving.jobs.records import JobRecord, StageState
from serving.jobs.types import JobType, Stage
from serving.protocol.tasks import TaskRequest, TaskResult
from serving.telemetry import STAGE_RETRIES, STAGE_SECONDS

R = TypeVar("R", bound=TaskResult)
T = TypeVar("T")
S = TypeVar("S")
Work = Callable[[StageFacts], Awaitable[S]]

log = structlog.get_logger()

MAX_PARTS: Final = 5_000
"""Most calls one stage may make."""
BACK_OFF_S: Final = 0.5
"""Pause before the second try of a call; doubles with each further one."""
_EVENT_STEP: Final = 0.01
"""The bar's smallest move that is worth an event: at most a hundred per job."""


class Runner(Protocol):
    """What runs a typed request: the router, or a stand-in with its shape."""

    async def run(self, request: TaskRequest, call: Call, *, model: str | None = None) -> TaskResult:
        """Run one request to its result."""


class DurableContext:
    """One run of one job.

    Args:
        record: the job as it was taken up.
        job_type: its type.
        journal: where the run is recorded.
        runner: runs the stages' requests.
        artifacts: the shared store.
        deadline_unix_s: when the run must be over.
        parallel_calls: most calls of the job in flight at a time.
    """

    def __init__(
        self,
        record: JobRecord,
        job_type: JobType,
        *,
        journal: Journal,
        runner: Runner,
        artifacts: ArtifactStore,
        deadline_unix_s: float,
        parallel_calls: int,
    ) -> None:
        self.job_id = record.id
        self.artifacts = artifacts
        self.failed_stage: str | None = None
        self._job_type = job_type
        self._stages = {stage.name: stage for stage in job_type.stages}
        self._facts = {stage.name: StageFacts(stage) for stage in record.stages}
        self._done: dict[str, float] = {}
        self._told = record.progress
        self._journal = journal
        self._runner = runner
        self._deadline_unix_s = deadline_unix_s
        self._slots = asyncio.Semaphore(parallel_calls)
        self._opening = asyncio.Lock()
        self._opened: set[str] = set()

    @property
    def served_by(self) -> list[str]:
        """Who served the job's calls so far; see :class:`serving.jobs.types.JobContext`."""
        return list(dict.fromkeys(name for facts in self._facts.values() for name in facts.models))

    async def run(self, stage: str, request: TaskRequest, result: type[R], *, model: str | None = None) -> R:
        """Run one typed task; see :class:`serving.jobs.types.JobContext`."""
        return (await self.map(stage, [request], result, model=model))[0]

    async def map(
        self, stage: str, requests: Sequence[TaskRequest], result: type[R], *, model: str | None = None
    ) -> list[R]:
        """Run several requests of one task in parallel; see :class:`serving.jobs.types.JobContext`."""
        calls = [partial(self._ask, stage, request, result, model) for request in requests]
        return await self._perform(stage, calls, result.model_validate_json)

    async def step(self, stage: str, work: Callable[[], Awaitable[T]]) -> T:
        """Run own code as a durable stage; see :class:`serving.jobs.types.JobContext`."""

        async def call(_facts: StageFacts) -> T:
            return await work()

        return (await self._perform(stage, [call], _as_is))[0]

    async def _ask(
        self, stage: str, request: TaskRequest, result: type[R], model: str | None, facts: StageFacts
    ) -> str:
        call = Call(deadline_unix_s=self._deadline_unix_s, job_id=self.job_id, stage=stage)
        answer = await self._runner.run(request, call, model=model)
        if not isinstance(answer, result):
            raise EngineFailed(f"expected {result.__name__}, got {type(answer).__name__}")
        facts.add_model(call.served_by)
        return answer.model_dump_json()

    async def _perform(self, name: str, works: Sequence[Work[S]], decode: Callable[[S], T]) -> list[T]:
        """Run the calls of a stage as DBOS steps, each retried while its error says so.

        Args:
            name: the stage.
            works: the calls; what they return is what DBOS keeps.
            decode: turns what DBOS keeps into the value a graph sees.
        """
        stage, facts = self._stage(name), self._facts.setdefault(name, StageFacts())
        if len(works) > MAX_PARTS:
            raise TooLarge(f"{len(works)} calls are over the bound of {MAX_PARTS}", field=name)
        steps = [DBOS.reserve_step() for _ in works]
        first, began = facts.parts, time.monotonic()
        facts.parts += len(works)
        self._done[name] = facts.parts_done / facts.parts if facts.parts else 1.0
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._part(stage, facts, step, f"{name}[{index}]", work, decode))
                    for index, (step, work) in enumerate(zip(steps, works, strict=True), start=first)
                ]
        except BaseExceptionGroup as failed:
            await self._fail(name, facts, failed.exceptions[0])
            raise failed.exceptions[0] from failed.exceptions[0].__cause__
        results = [task.result() for task in tasks]
        if name in self._opened:
            STAGE_SECONDS.labels(self._job_type.name, name).observe(time.monotonic() - began)
        facts.add_artifacts(results)
        outcome = StageState.DONE if facts.parts else StageState.SKIPPED
        if facts.parts_done == facts.parts:
            await self._journal.stage_ended(self.job_id, name, outcome, facts, progress=self._progress())
            self._opened.discard(name)  # a graph may come back to a stage
        return results

    async def _part(
        self,
        stage: Stage,
        facts: StageFacts,
        step: StepReservation,
        name: str,
        work: Work[S],
        decode: Callable[[S], T],
    ) -> T:
        tries = 0

        async def body() -> S:
            nonlocal tries
            tries += 1
            if tries > 1:
                STAGE_RETRIES.labels(self._job_type.name, stage.name).inc()
            facts.tries = max(facts.tries, tries)
            await self._open(stage, facts)
            return await self._guarded(stage, work, facts)

        async with self._slots:
            try:
                value = decode(await step.run_async(self._options(name), body))
            except dbos_errors.DBOSMaxStepRetriesExceeded as exhausted:
                raise exhausted.errors[-1] from exhausted
        facts.parts_done += 1
        self._done[stage.name] = facts.parts_done / facts.parts
        if tries and facts.parts_done < facts.parts:
            await self._advance(stage.name, facts)
        return value

    async def _guarded(self, stage: Stage, work: Work[T], facts: StageFacts) -> T:
        try:
            return await work(facts)
        except ReelmeshError as error:
            log.warning("stage_call_failed", job_id=self.job_id, stage=stage.name, error=str(error))
            raise
        except Exception as error:
            log.exception("stage_call_crashed", job_id=self.job_id, stage=stage.name)
            raise EngineFailed(f"{type(error).__name__}: {foreign_text(error)}") from error

    async def _open(self, stage: Stage, facts: StageFacts) -> None:
        """Record that the stage runs, once, before its first call is made."""
        async with self._opening:
            if stage.name not in self._opened:
                await self._journal.stage_started(self.job_id, stage.name, stage.state, facts)
                self._opened.add(stage.name)

    async def _advance(self, name: str, facts: StageFacts) -> None:
        progress = self._progress()
        moved = progress - self._told >= _EVENT_STEP
        if moved:
            self._told = progress
        await self._journal.stage_advanced(self.job_id, name, facts, progress=progress if moved else None)

    async def _fail(self, name: str, facts: StageFacts, error: BaseException) -> None:
        if isinstance(error, Exception):
            self.failed_stage = name
            await self._journal.stage_ended(self.job_id, name, StageState.FAILED, facts, progress=self._told)

    def _progress(self) -> float:
        return max(self._told, job_progress(self._job_type.stages, self._done))

    def _stage(self, name: str) -> Stage:
        if name not in self._stages:
            known = ", ".join(self._stages)
            raise BadInput(f"{self._job_type.name} has no stage {name!r}", fix=f"its stages are {known}")
        return self._stages[name]

    def _options(self, name: str) -> StepOptions:
        return {
            "name": name,
            "retries_allowed": True,
            "max_attempts": max(1, self._job_type.tries),
            "interval_seconds": BACK_OFF_S,
            "backoff_rate": 2.0,
            "should_retry": _is_retryable,
        }


def _is_retryable(error: BaseException) -> bool:
    return isinstance(error, ReelmeshError) and error.retryable


def _as_is(value: T) -> T:
    return value
