"""Runner: the one thread that a network runs in, its queue, and the batches formed of it; owned by NetworkEngine.

The one invariant: whatever a batch ends with, each of its requests is answered once and the next batch starts clean.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

import structlog

from serving.backends.call import Call
from serving.backends.ray.engines.network.batching import next_batch
from serving.backends.ray.engines.network.faults import translated
from serving.backends.ray.engines.network.steps import Steps
from serving.errors import OutOfMemory, ReelmeshError, Unavailable

log = structlog.get_logger()

GATHER_S: Final = 0.02
"""Longest that a free network waits for requests that are being prepared, so that they may share its passes."""

T = TypeVar("T")
Prepared = TypeVar("Prepared")
Output = TypeVar("Output")


class Ran(NamedTuple, Generic[Output]):
    """One request's output and how it came to be: seconds in the queue and at work, steps, requests of its batch."""

    output: Output
    queue_s: float
    run_s: float
    steps: int
    batch: int


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Prepared, Output]):
    prepared: Prepared
    call: Call
    key: Hashable | None
    future: asyncio.Future[Ran[Output]]
    came_s: float = field(default_factory=time.perf_counter)


class Runner(Generic[Prepared, Output]):
    """Runs prepared requests, several at a time where they fit together.

    Args:
        model: its name, for errors and the thread.
        generate: the network's work on a batch; blocks, calls its steps, and returns one output for each.
        recover: called in the thread after a failure, before anything else runs.
        most: requests in a batch.
        lower: request fields that take memory.
    """

    def __init__(
        self,
        model: str,
        generate: Callable[[Sequence[Prepared], Steps], Sequence[Output]],
        recover: Callable[[], None],
        *,
        most: int = 1,
        lower: Sequence[str] = (),
    ) -> None:
        self._model, self._generate, self._recover = model, generate, recover
        self._most, self._lower = most, lower
        self.waiting: list[_Waiting[Prepared, Output]] = []
        self._running: list[_Waiting[Prepared, Output]] = []
        self._coming = 0
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"network-{model}")

    async def call(self, work: Callable[[], T]) -> T:
        """Run something else in the network's thread, between batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    @contextlib.contextmanager
    def coming(self) -> Iterator[None]:
        """A request is being prepared inside; a free network may wait a moment for it."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1
            self._moved.set()

    async def run(self, prepared: Prepared, call: Call, key: Hashable | None) -> Ran[Output]:
        """Run one request to its output; cancelling the awaiting task cancels the request.

        Args:
            prepared: what the network's ``generate`` takes.
            call: its deadline, cancel and progress.
            key: equal for requests that may share a batch; None shares with nobody.

        Raises:
            ReelmeshError: the network's failure in our terms.
            Unavailable: the model is being unloaded.
        """
        if self._closed:
            raise Unavailable(f"{self._model} is being unloaded")
        waiting = _Waiting(prepared, call, key, asyncio.get_running_loop().create_future())
        self.waiting.append(waiting)
        self._moved.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._serve())
        try:
            return await waiting.future
        finally:
            if waiting in self.waiting:
                self.waiting.remove(waiting)
            if not waiting.future.done() or waiting.future.cancelled():
                call.cancel()

    async def close(self) -> None:
        """Refuse what waits and let the batch at work end at its next step."""
        self._closed = True
        for waiting in self.waiting:
            _settle(waiting, Unavailable(f"{self._model} is being unloaded"))
        self.waiting.clear()
        for waiting in self._running:
            waiting.call.cancel()
        if self._task is not None:
            await self._task
        await asyncio.to_thread(self._thread.shutdown)

    async def _serve(self) -> None:
        while self.waiting:
            await self._gather()
            chosen = next_batch([waiting.key for waiting in self.waiting], self._most)
            batch = [self.waiting[index] for index in chosen]
            self.waiting = [waiting for waiting in self.waiting if waiting not in batch]
            if batch := [waiting for waiting in batch if _alive(waiting)]:
                await self._work(batch)

    async def _gather(self) -> None:
        """Wait a moment for requests that are on their way, as long as the batch has room."""
        if self._most == 1:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_S):
                while self._coming and len(self.waiting) < self._most:
                    self._moved.clear()
                    await self._moved.wait()

    async def _work(self, batch: list[_Waiting[Prepared, Output]]) -> None:
        """Run a batch; one that fails runs again request by request, so that only the guilty one fails."""
        self._running = batch
        try:
            await self._attempt(batch)
        except ReelmeshError as error:
            if len(batch) > 1:
                log.warning("batch_split", model=self._model, requests=len(batch), error=str(error))
                for waiting in batch:
                    if _alive(waiting):
                        await self._work([waiting])
                return
            _settle(batch[0], error)
        finally:
            self._running = []  # outputs, which may be large, go with those who asked for them

    async def _attempt(self, batch: list[_Waiting[Prepared, Output]]) -> None:
        loop, began = asyncio.get_running_loop(), time.perf_counter()

        def left(index: int, error: ReelmeshError) -> None:
            loop.call_soon_threadsafe(_settle, batch[index], error)

        steps = Steps([waiting.call for waiting in batch], left)
        outputs = await loop.run_in_executor(self._thread, self._guarded, batch, steps)
        run_s = time.perf_counter() - began
        for waiting, output in zip(batch, outputs, strict=True):
            if not waiting.future.done():
                ran = Ran(output, began - waiting.came_s, run_s, steps.done, len(batch))
                waiting.future.set_result(ran)

    def _guarded(self, batch: list[_Waiting[Prepared, Output]], steps: Steps) -> Sequence[Output]:
        """In the network's thread: whatever it raises, it is fit for the next batch afterwards."""
        try:
            outputs = self._generate([waiting.prepared for waiting in batch], steps)
        except Exception as error:
            failed = translated(error, self._model, self._lower)
            if isinstance(failed, OutOfMemory):
                log.warning("out_of_memory", model=self._model, error=str(failed))
            elif not isinstance(error, ReelmeshError):
                log.exception("network_failed", model=self._model)
            error.__traceback__ = None  # its frames hold the tensors that are to be freed
            self._clean()
            if failed is error:
                raise
            raise failed from error
        if len(outputs) != len(batch):
            raise translated(RuntimeError(f"{len(outputs)} outputs for {len(batch)} requests"), self._model, ())
        return outputs

    def _clean(self) -> None:
        """Recover; where even that fails, as on a device that is lost, the batch is answered all the same."""
        try:
            self._recover()
        except Exception:
            log.exception("not_recovered", model=self._model)


def _alive(waiting: _Waiting[Prepared, Output]) -> bool:
    if waiting.future.done():
        return False
    try:
        waiting.call.checkpoint()
    except ReelmeshError as error:
        _settle(waiting, error)
        return False
    return True


def _settle(waiting: _Waiting[Prepared, Output], error: ReelmeshError) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(error)
