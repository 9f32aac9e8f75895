"""Meter: how many CPU and GPU seconds each typed request cost, measured where the work is done; used by both replicas.

The one invariant: what the requests of a replica cost together is never more than what its clock counted: requests
that run side by side share each moment evenly, since a process's clock cannot tell them apart.
"""

import contextlib
import resource
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import structlog

from serving.errors import EngineFailed, ReelmeshError, foreign_text
from serving.protocol.tasks import TaskResult

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class Cost:
    """What one request cost so far.

    Attributes:
        gpu_share: part of a GPU the model leases, 0 on a machine without.
        cpu_s: CPU seconds.
        gpu_s: GPU seconds: time at work, times the share.
    """

    gpu_share: float = 0.0
    cpu_s: float = 0.0
    gpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Served:
    """What a replica answers to the router: the result or why there is none, who made it and what it cost."""

    result: TaskResult | ReelmeshError
    replica: str
    cpu_s: float
    gpu_s: float


def process_cpu_s() -> float:
    """CPU seconds of this process, and of its children that have ended (ffmpeg); living ones count when they end."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


class Meter:
    """Splits a replica's clock over the requests at work.

    Args:
        cpu_s: the clock; a replica whose work is done by another process gives wall-clock time in its stead.
        wall_s: monotonic seconds.
    """

    def __init__(
        self, cpu_s: Callable[[], float] = process_cpu_s, wall_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._cpu_s, self._wall_s = cpu_s, wall_s
        self._last = (cpu_s(), wall_s())
        self._at_work: list[Cost] = []

    @contextlib.contextmanager
    def measure(self, gpu_share: float = 0.0) -> Iterator[Cost]:
        """Measure one request; the cost is complete when the block is left."""
        self._settle()
        cost = Cost(gpu_share)
        self._at_work.append(cost)
        try:
            yield cost
        finally:
            self._settle()
            self._at_work.remove(cost)

    async def served(self, model: str, work: Awaitable[TaskResult], *, gpu_share: float, replica: str) -> Served:
        """Do a request's work and measure it; a failure is an answer too, since it cost something."""
        result: TaskResult | ReelmeshError
        with self.measure(gpu_share) as cost:
            try:
                result = await work
            except ReelmeshError as error:
                result = error
            except Exception as error:
                log.exception("engine_crashed", model=model)
                result = EngineFailed(f"{model} failed: {foreign_text(error)}")
        return Served(result, replica, cost.cpu_s, cost.gpu_s)

    def _settle(self) -> None:
        now, last = (self._cpu_s(), self._wall_s()), self._last
        self._last = now
        for cost in self._at_work:
            cost.cpu_s += max(0.0, now[0] - last[0]) / len(self._at_work)
            cost.gpu_s += cost.gpu_share * (now[1] - last[1]) / len(self._at_work)
