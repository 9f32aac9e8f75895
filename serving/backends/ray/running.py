"""RunningModel: one served model with its requests in flight and its counts; held by OipPlane.

The one invariant: after retire() nothing of the model runs and its engine is closed.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog

from serving import telemetry
from serving.backends.ray.batch_rules import QUEUE_SIZE, rules_of
from serving.backends.ray.pace import Pace
from serving.backends.ray.scheduler import Scheduler
from serving.backends.ray.sequence_rules import sequence_rules_of
from serving.backends.ray.sequences import Sequences
from serving.backends.ray.served import ServedModel
from serving.errors import Cancelled, DeadlineExceeded, EngineFailed, QueueFull, ReelmeshError, foreign_text
from serving.protocol.oip import InferRequest, InferResponse
from serving.protocol.oip_config import RequestCheck
from serving.protocol.oip_parameters import timeout_s
from serving.protocol.oip_statistics import ModelStatistics, Times

log = structlog.get_logger()

_STREAMS: Final = 64
"""Requests of a decoupled model in flight, where nothing else is said: each holds its engine as long as it likes."""


Observe = Callable[[InferRequest, float, Times], None]


class RunningModel:
    """Runs requests of one model.

    Args:
        served: the model; its engine is closed by :meth:`retire`.
        observe: told every request that was answered, when it came (``time.perf_counter``) and where its time went.
        queue_size: bound of its queue, where neither it nor its configuration has one.
    """

    def __init__(self, served: ServedModel, observe: Observe | None = None, queue_size: int = QUEUE_SIZE) -> None:
        self._observe = observe
        self.served = served
        self.decoupled = bool(served.config.model_transaction_policy.decoupled)
        self.check = RequestCheck(served.config)
        self._queue_size = queue_size if served.waiting is None else served.waiting
        self._rules = rules_of(served.config, served.instances, self._queue_size)
        self._statistics = {version: ModelStatistics() for version in served.versions}
        self._in_order = served.config.HasField("sequence_batching")
        self._runners = {version: self._runner(counts) for version, counts in self._statistics.items()}
        telemetry.QUEUE_DEPTH.labels(served.name).set_function(self._waiting)
        self._pace = Pace()
        self._in_flight = 0
        self._idle: asyncio.Future[None] | None = None
        self._gauge = telemetry.IN_FLIGHT.labels(served.name)
        self._counters: dict[tuple[str, str], Any] = {}

    def _runner(self, counts: ModelStatistics) -> Scheduler | Sequences:
        served = self.served
        scheduler = Scheduler(served.name, self._rules, served.engine, counts)
        if not self._in_order:
            return scheduler
        return Sequences(sequence_rules_of(served.config), scheduler, self._queue_size)

    def documents(self, version: str = "") -> list[dict[str, Any]]:
        """Statistics, one entry for each version or for the one asked for."""
        versions = [version] if version else self.served.versions
        return [self._statistics[each].document(self.served.name, each) for each in versions]

    @property
    def in_flight(self) -> int:
        """Requests that are not answered yet."""
        return self._in_flight

    def timed(self, request: InferRequest, deadline_unix_s: float | None) -> InferRequest:
        """The request with its deadline: the wire's, or its own ``timeout`` where the queue does not look after it."""
        own = None if self._rules.policy_of(self._rules.default_level).override else timeout_s(request.parameters)
        if own is not None:
            deadline_unix_s = min(time.time() + own, deadline_unix_s or float("inf"))
        return request if deadline_unix_s is None else replace(request, deadline_unix_s=deadline_unix_s)

    async def infer(self, request: InferRequest, protocol: str) -> InferResponse:
        """Run one checked request whose version is known.

        Raises:
            ReelmeshError: foreign errors become :class:`EngineFailed`.
        """
        runner = self._runners[request.model_version]
        with self._counted(request, protocol) as counted:
            if self._in_order:
                async with _within(request):
                    answer, counted.times = await runner.run(request)
            else:
                answer, counted.times = await runner.run(request)
            return _finished(answer, request)

    async def stream(self, request: InferRequest, protocol: str) -> AsyncGenerator[InferResponse, None]:
        """Run one checked request of a decoupled model."""
        most = self.served.instances or _STREAMS
        if self._in_flight >= most:
            wait_s = self._pace.retry_after_s(1)
            raise QueueFull("Exceeds maximum queue size", field=request.model_name, retry_after_s=wait_s)
        counts = self._statistics[request.model_version]
        with self._counted(request, protocol):
            index, began = 0, time.perf_counter()
            last = began
            async with _within(request), contextlib.aclosing(_generator(self.served.engine.stream(request))) as answers:
                async for answer in answers:
                    now = time.perf_counter()
                    counts.response(index, now - last, "success" if answer.outputs else "empty")
                    index, last = index + 1, now
                    yield _finished(answer, request)
            now = time.perf_counter()
            self._pace.measured((now - began) / most)
            counts.batch(_rows(request, self.served), Times(infer_s=now - last))

    async def retire(self, grace_s: float) -> None:
        """Wait for what is in flight, refuse and cancel what is left after ``grace_s``, close the engine."""
        if self._in_flight and grace_s > 0:
            self._idle = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._idle], timeout=grace_s)
        for runner in self._runners.values():
            await runner.close()
        await self.served.engine.close()

    def _waiting(self) -> int:
        return sum(runner.waiting for runner in self._runners.values())

    @contextlib.contextmanager
    def _counted(self, request: InferRequest, protocol: str) -> Iterator["_Counted"]:
        started, outcome, counted = time.perf_counter(), EngineFailed.code, _Counted()
        self._gauge.inc()
        self._in_flight += 1
        try:
            yield counted
            outcome = "ok"
        except ReelmeshError as error:
            outcome = error.code
            raise
        except (asyncio.CancelledError, GeneratorExit):
            outcome = Cancelled.code
            raise
        finally:
            self._gauge.dec()
            self._in_flight -= 1
            self._count(request, protocol, outcome, time.perf_counter() - started, counted.times)
            if self._observe is not None and outcome == "ok":
                self._observe(request, started, counted.times)
            if self._idle is not None and not self._in_flight and not self._idle.done():
                self._idle.set_result(None)

    def _count(self, request: InferRequest, protocol: str, outcome: str, seconds: float, times: Times) -> None:
        key = (protocol, outcome)
        if key not in self._counters:
            name = self.served.name
            self._counters[key] = (
                telemetry.REQUESTS.labels(name, protocol, outcome),
                telemetry.REQUEST_SECONDS.labels(name, protocol),
            )
        total, histogram = self._counters[key]
        total.inc()
        histogram.observe(seconds)
        statistics = self._statistics[request.model_version]
        if outcome == "ok":
            statistics.succeeded(_rows(request, self.served), seconds, times)
        else:
            statistics.failed(seconds)


@dataclass(slots=True)
class _Counted:
    times: Times = field(default_factory=Times)


def _rows(request: InferRequest, served: ServedModel) -> int:
    return request.inputs[0].shape[0] if served.config.max_batch_size and request.inputs else 1


async def _generator(answers: AsyncIterator[InferResponse]) -> AsyncGenerator[InferResponse, None]:
    """Any iterator as a generator, which can be closed."""
    try:
        async for answer in answers:
            yield answer
    finally:
        close = getattr(answers, "aclose", None)
        if close is not None:
            await close()


@contextlib.asynccontextmanager
async def _within(request: InferRequest) -> AsyncIterator[None]:
    """Foreign errors become :class:`EngineFailed`, a deadline that passes :class:`DeadlineExceeded`."""
    limit = None if request.deadline_unix_s is None else request.deadline_unix_s - time.time()
    try:
        async with asyncio.timeout(limit) as clock:
            yield
    except TimeoutError as error:
        if not clock.expired():
            raise EngineFailed(f"{request.model_name}: {foreign_text(error)}") from error
        raise DeadlineExceeded("the request's timeout passed", field="timeout") from error
    except ReelmeshError:
        raise
    except Exception as error:
        log.exception("oip_infer_failed", model=request.model_name)
        raise EngineFailed(f"{request.model_name}: {foreign_text(error)}") from error


def _finished(response: InferResponse, request: InferRequest) -> InferResponse:
    """The response with the request's version and id, and the outputs asked for in the order asked for."""
    outputs = response.outputs
    if request.outputs:
        by_name = {tensor.name: tensor for tensor in outputs}
        outputs = tuple(by_name[wanted.name] for wanted in request.outputs if wanted.name in by_name)
    return InferResponse(response.model_name, request.model_version, request.id, response.parameters, outputs)
