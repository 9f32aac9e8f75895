"""RunningModel: one served model with its requests in flight and its counts; held by OipPlane.

The one invariant: after retire() nothing of the model runs and its engine is closed.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import structlog

from serving import telemetry
from serving.backends.ray.served import ServedModel
from serving.errors import Cancelled, DeadlineExceeded, EngineFailed, ReelmeshError, Unsupported, foreign_text
from serving.protocol.oip import InferRequest, InferResponse
from serving.protocol.oip_metadata import ModelStatistics

log = structlog.get_logger()


class RunningModel:
    """Runs requests of one model.

    Args:
        served: the model; its engine is closed by :meth:`retire`.
    """

    def __init__(self, served: ServedModel) -> None:
        self.served = served
        self.decoupled = bool(served.config.model_transaction_policy.decoupled)
        self._statistics = {version: ModelStatistics() for version in served.versions}
        self._tasks: set[asyncio.Task[Any]] = set()

    def documents(self, version: str = "") -> list[dict[str, Any]]:
        """Statistics, one entry for each version or for the one asked for."""
        versions = [version] if version else self.served.versions
        return [self._statistics[each].document(self.served.name, each) for each in versions]

    async def infer(self, request: InferRequest, protocol: str) -> InferResponse:
        """Run one checked request whose version is known."""
        if self.decoupled:
            raise Unsupported("ModelInfer RPC doesn't support models with decoupled transaction policy")
        with self._counted(request, protocol):
            async with _within(request):
                (answer,) = await self.served.engine.execute([request])
        if isinstance(answer, ReelmeshError):
            raise answer
        return _finished(answer, request)

    async def stream(self, request: InferRequest, protocol: str) -> AsyncIterator[InferResponse]:
        """Run one checked request of a decoupled model."""
        with self._counted(request, protocol):
            async with _within(request):
                async for answer in self.served.engine.stream(request):
                    yield _finished(answer, request)

    async def retire(self, grace_s: float) -> None:
        """Wait for what is in flight, cancel what is left after ``grace_s``, close the engine."""
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=grace_s)
            for task in left:
                task.cancel()
        await self.served.engine.close()

    @contextlib.contextmanager
    def _counted(self, request: InferRequest, protocol: str) -> Iterator[None]:
        started, outcome = time.perf_counter(), EngineFailed.code
        gauge = telemetry.IN_FLIGHT.labels(request.model_name)
        gauge.inc()
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        try:
            yield
            outcome = "ok"
        except ReelmeshError as error:
            outcome = error.code
            raise
        except asyncio.CancelledError:
            outcome = Cancelled.code
            raise
        finally:
            gauge.dec()
            if task is not None:
                self._tasks.discard(task)
            self._count(request, protocol, outcome, time.perf_counter() - started)

    def _count(self, request: InferRequest, protocol: str, outcome: str, seconds: float) -> None:
        telemetry.REQUESTS.labels(request.model_name, protocol, outcome).inc()
        telemetry.REQUEST_SECONDS.labels(request.model_name, protocol).observe(seconds)
        counted = self._statistics[request.model_version]
        if outcome == "ok":
            counted.inferences += (
                request.inputs[0].shape[0] if self.served.config.max_batch_size and request.inputs else 1
            )
            counted.executions += 1
            counted.success_s += seconds
            counted.last_unix_ms = int(time.time() * 1000)
        else:
            counted.failures += 1
            counted.failure_s += seconds


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
        raise DeadlineExceeded("the request's timeout passed", field="parameters.timeout") from error
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
    return replace(response, model_version=request.model_version, id=request.id, outputs=outputs)
