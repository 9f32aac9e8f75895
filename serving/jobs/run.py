"""Runs: the graphs a worker has at work, each a task that can be stopped; used by the worker.

The one invariant: a run ends with an output, an error of the mesh, or word of who stopped it: the user, the loss of
the job, or the end of the worker; nothing else comes out of a graph.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, Final

import structlog
from pydantic import JsonValue, ValidationError

from serving.errors import BadInput, DeadlineExceeded, EngineFailed, ReelmeshError, foreign_text
from serving.jobs.journal import RunLost
from serving.jobs.records import JobRecord
from serving.jobs.types import JobOutput, JobType, StoppedEarly

if TYPE_CHECKING:
    from serving.jobs.context import DurableContext

log = structlog.get_logger()

CANCEL_GRACE_S: Final = 1.0
"""How long a cancelled graph may take to unwind before the job is called cancelled without it."""


class CancelledByUser(Exception):
    """The run was stopped because somebody asked."""


class Runs:
    """What runs in this worker."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[JobOutput]] = {}
        self._stops: dict[str, asyncio.Future[BaseException]] = {}
        self._closed = False

    @property
    def ids(self) -> Collection[str]:
        """The jobs."""
        return list(self._tasks)

    def cancel(self, job_id: str) -> None:
        """Stop a job's run for the user's sake, if there is one."""
        self._stop(job_id, CancelledByUser())

    def lose(self, job_id: str) -> None:
        """Stop a job's run because the job is no longer this worker's."""
        self._stop(job_id, RunLost(job_id))

    def _stop(self, job_id: str, why: BaseException) -> None:
        if (stop := self._stops.get(job_id)) is not None and not stop.done():
            stop.set_result(why)

    async def close(self) -> None:
        """Stop all runs; they stay unfinished."""
        self._closed = True
        await cancel_all(self._tasks.values())

    async def run(self, record: JobRecord, job_type: JobType, context: "DurableContext") -> JobOutput:
        """Run the graph to its end.

        Raises:
            ReelmeshError: it failed, or took too long.
            CancelledByUser: :meth:`cancel` was called.
            RunLost: :meth:`lose` was called, or the journal refused what it had to say.
        """
        if self._closed:  # it was taken up in the moment of the worker's end
            raise asyncio.CancelledError
        task = asyncio.create_task(_run_graph(record, job_type, context), name=f"job-{record.id}")
        self._tasks[record.id] = task
        stop = self._stops[record.id] = asyncio.get_running_loop().create_future()
        try:
            waiting: set[asyncio.Future[Any]] = {task, stop}
            left_s = max(0.0, end_of(record) - time.time())
            done, _ = await asyncio.wait(waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if stop in done:
                await _end(task)
                # A graph that came to its end in the same moment has the better claim, unless it is another's now.
                if not task.done() or task.cancelled() or isinstance(stop.result(), RunLost):
                    raise stop.result()
            elif not done:
                raise _too_late(record)
            if task.cancelled() and not self._closed:
                raise EngineFailed("the graph was cancelled from within, though nobody asked for it")
            return task.result()
        finally:
            await _end(task)
            self._tasks.pop(record.id, None)
            self._stops.pop(record.id, None)


async def cancel_all(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel tasks and wait until they have ended."""
    found = list(tasks)
    for task in found:
        task.cancel()
    await asyncio.gather(*found, return_exceptions=True)


def end_of(record: JobRecord) -> float:
    """When the run must be over, in Unix seconds; each run of a job has all of its time, up to its deadline."""
    end = (record.taken_at or time.time()) + record.timeout_s
    return end if record.deadline_at is None else min(end, record.deadline_at)


def _too_late(record: JobRecord) -> DeadlineExceeded:
    if record.deadline_at is not None and record.deadline_at <= time.time():
        return DeadlineExceeded("its deadline passed while it ran", fix="submit it with a later deadline")
    return DeadlineExceeded(
        f"it ran longer than its {record.timeout_s:g} s",
        fix="submit it with a larger timeout_s (`reelmesh submit --timeout`)",
    )


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
    if (place := _no_number(output.facts, "facts")) is not None:
        raise EngineFailed("the graph returned a number that JSON does not have", field=place)
    return output


def _no_number(value: JsonValue, place: str) -> str | None:
    """Where NaN or an infinity stands in a value, which PostgreSQL and most readers refuse."""
    if isinstance(value, float):
        return None if math.isfinite(value) else place
    items: Iterable[tuple[object, JsonValue]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    return next((found for key, item in items if (found := _no_number(item, f"{place}.{key}")) is not None), None)


async def _end(task: "asyncio.Task[JobOutput]") -> None:
    """Cancel a graph and give it a moment to unwind, once."""
    if not task.done() and not task.cancelling():
        task.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait({task}, timeout=CANCEL_GRACE_S)
