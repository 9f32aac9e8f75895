"""DurableContext: the JobContext of graphs on top of DBOS steps; made by the worker for each run of a job.

The one invariant: step numbers are drawn before the first await of a stage, so a resumed run draws the same
ones, and a call whose result DBOS or the table of results holds is never made again.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import structlog
from dbos import DBOS, StepOptions, StepReservation
from dbos import error as dbos_errors

from serving.artifacts.store import ArtifactStore
from serving.backends.call import Call
from serving.errors import BadInput, EngineFailed, ReelmeshError, TooLarge, foreign_text
from serving.jobs.journal import Journal, StageFacts
from serving.jobs.keys import json_refs, request_key
from serving.jobs.makers import Run, provenance_of, revision_in
from serving.jobs.parts import Ledger, Part, Spent, own_part, type_name
from serving.jobs.progress import job_progress
from serving.jobs.records import JobRecord, StageState
from serving.jobs.results import Place, Result, Results
from serving.jobs.stage_times import StageTimes, check_fits
from serving.jobs.types import JobOutput, JobType, Stage, StoppedEarly
from serving.protocol.artifact import ArtifactRef
from serving.protocol.licences import COMMERCIAL, Use
from serving.protocol.tasks import TaskRequest, TaskResult
from serving.repository.identity import Identity
from serving.telemetry import STAGE_PARTS, STAGE_RETRIES, STAGE_SECONDS

R = TypeVar("R", bound=TaskResult)
T = TypeVar("T")

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

    def identity(self, request: TaskRequest, *, model: str | None = None, use: Use = COMMERCIAL) -> Identity:
        """The model that is asked first; raises :class:`LicenceForbids` where it may not be used for that."""


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
        self.job_id, self.use = record.id, record.use
        self.artifacts = artifacts
        self.failed_stage: str | None = None
        self._record, self._job_type = record, job_type
        self._stages = {stage.name: stage for stage in job_type.stages}
        self._facts = {stage.name: StageFacts(stage) for stage in record.stages}
        self._done: dict[str, float] = {}
        self._told = record.progress
        self._journal = journal
        self._runner = runner
        self._results, self._times = Results(journal.database, artifacts), StageTimes(journal.database)
        self._ledger = Ledger(record, list(self._stages), self._results)
        self._deadline_unix_s = deadline_unix_s
        self._slots = asyncio.Semaphore(parallel_calls)
        self._opening = asyncio.Lock()
        self._opened: set[str] = set()
        self._partly: dict[Place, float] = {}
        self._writing: asyncio.Task[None] | None = None

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
        return await self._perform(stage, [self._task(request, result, model) for request in requests])

    async def step(self, stage: str, work: Callable[[], Awaitable[T]], *, inputs: object = None) -> T:
        """Run own code as a durable stage; see :class:`serving.jobs.types.JobContext`."""
        return (await self._perform(stage, [own_part(self._job_type.name, stage, work, inputs)]))[0]

    def so_far(self) -> JobOutput:
        """What the finished stages made, for a job that was to stop early: files by stage and name."""
        files: dict[str, ArtifactRef] = {}
        for stage, facts in self._facts.items():
            for ref in facts.artifacts.values():
                name, again = f"{stage}.{ref.name}", 1
                while name in files:
                    again += 1
                    name = f"{stage}.{again}.{ref.name}"
                files[name] = ref
        return JobOutput(files=files, facts={"stopped_at": self._record.stop_at})

    def _task(self, request: TaskRequest, result: type[R], model: str | None) -> Part[R]:
        async def ask(call: Call) -> R:
            answer = await self._runner.run(request, call, model=model)
            if not isinstance(answer, result):
                raise EngineFailed(f"expected {result.__name__}, got {type(answer).__name__}")
            return answer

        # Before the cache is looked into: what a forbidden model once made is no more for this job than what it makes.
        identity = self._runner.identity(request, model=model, use=self.use)
        return Part(ask, result, request_key(request, identity), request, identity)

    async def _perform(self, name: str, parts: Sequence[Part[T]]) -> list[T]:
        """Run the calls of a stage as DBOS steps, each retried while its error says so."""
        self._stop_before(name)
        stage, facts = self._stage(name), self._facts.setdefault(name, StageFacts())
        if len(parts) > MAX_PARTS:
            raise TooLarge(f"{len(parts)} calls are over the bound of {MAX_PARTS}", field=name)
        steps = [DBOS.reserve_step() for _ in parts]
        first, began = facts.parts, time.monotonic()
        facts.parts += len(parts)
        self._done[name] = facts.parts_done / facts.parts if facts.parts else 1.0
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._part(stage, facts, step, Place(self.job_id, name, index), part))
                    for index, (step, part) in enumerate(zip(steps, parts, strict=True), start=first)
                ]
            await self._written()
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

    async def _part(self, stage: Stage, facts: StageFacts, step: StepReservation, place: Place, part: Part[T]) -> T:
        tries, spent, made = 0, Spent(), False

        async def body() -> str:
            nonlocal tries, made
            tries += 1
            if tries > 1:
                STAGE_RETRIES.labels(self._job_type.name, stage.name).inc()
            result = await self._guarded(stage, partial(self._ledger.find, place, part))
            if result is None:
                await self._open(stage, facts)
                try:
                    result = await self._guarded(stage, partial(self._make, place, part, spent))
                finally:
                    facts.tries = max(facts.tries, spent.tries)
                made = True
            facts.add_server(result.served_by, result.replica)
            STAGE_PARTS.labels(self._job_type.name, stage.name, result.origin).inc()
            return result.value

        async with self._slots:
            try:
                value = part.decode(await step.run_async(self._options(f"{place.stage}[{place.part}]"), body))
            except dbos_errors.DBOSMaxStepRetriesExceeded as exhausted:
                raise exhausted.errors[-1] from exhausted
            finally:
                if not made:  # no result tells of what was spent all the same
                    facts.failed_cpu_s += spent.cpu_s
                    facts.failed_gpu_s += spent.gpu_s
        facts.parts_done += 1
        self._done[stage.name] = facts.parts_done / facts.parts
        if tries and facts.parts_done < facts.parts:
            await self._advance(stage.name, facts)
        return value

    async def _make(self, place: Place, part: Part[Any], spent: Spent) -> Result:
        """Do the work of a part, and leave its result and who made it; what it took is added to ``spent``."""
        began = time.time()
        call = Call(deadline_unix_s=self._deadline_unix_s, job_id=self.job_id, stage=place.stage, use=self.use)
        call.on_progress = partial(self._moved, place)
        try:
            value = part.encode(await part.work(call))
        finally:
            spent.add(call)
            self._partly.pop(place, None)
        by, key = part.identity, part.key
        if by is not None and part.request is not None and call.served_by.rpartition("/")[2] != by.model:
            by = self._runner.identity(part.request, model=call.served_by.rpartition("/")[2], use=self.use)
            key = request_key(part.request, by)  # a fallback's result is not the first model's
        told = json.loads(value)
        run = Run(self._job_type.name, self.use, call.served_by, revision_in(told))
        records = provenance_of(json_refs(told), part, place, run, by)
        await asyncio.gather(*(self.artifacts.put_provenance(ref, record) for ref, record in records))
        result = Result(
            value=value,
            value_type=type_name(part.kind),
            key=key,
            served_by=call.served_by or None,
            replica=call.replica or None,
            tries=spent.tries,
            started_at=began,
            ended_at=time.time(),
            cpu_s=spent.cpu_s,
            gpu_s=spent.gpu_s,
        )
        await self._results.record(place, result)
        return result

    async def _guarded(self, stage: Stage, work: Callable[[], Awaitable[T]]) -> T:
        try:
            return await work()
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
                await self._check_deadline(stage, facts)
                await self._journal.stage_started(self.job_id, stage.name, stage.state, facts)
                self._opened.add(stage.name)

    async def _check_deadline(self, stage: Stage, facts: StageFacts) -> None:
        if (deadline := self._record.deadline_at) is not None:
            expected_s = await self._times.expected_s(self._job_type.name, stage.name, facts.parts - facts.parts_done)
            check_fits(stage.name, expected_s, deadline - time.time())

    def _stop_before(self, name: str) -> None:
        """Go no further than the stage at which the job is to stop."""
        order = list(self._stages)
        if (last := self._record.stop_at) in self._stages and name in order and order.index(name) > order.index(last):
            raise StoppedEarly

    async def _advance(self, name: str, facts: StageFacts) -> None:
        progress = self._progress()
        moved = progress - self._told >= _EVENT_STEP
        if moved:
            self._told = progress
        await self._journal.stage_advanced(self.job_id, name, facts, progress=progress if moved else None)

    def _moved(self, place: Place, done: float) -> None:
        """A call tells how far it is; written down where the job's bar moves, one write at a time."""
        facts = self._facts[place.stage]
        self._partly[place] = done
        partly = sum(done for other, done in self._partly.items() if other.stage == place.stage)
        self._done[place.stage] = min(1.0, (facts.parts_done + partly) / facts.parts)
        if self._progress() - self._told >= _EVENT_STEP and (self._writing is None or self._writing.done()):
            self._writing = asyncio.create_task(self._advance(place.stage, facts))

    async def _written(self) -> None:
        """Nothing of what calls told is still on its way to the journal."""
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    async def _fail(self, name: str, facts: StageFacts, error: BaseException) -> None:
        if self._writing is not None:
            await asyncio.wait({self._writing})
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
