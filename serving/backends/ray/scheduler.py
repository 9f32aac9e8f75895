"""Scheduler: forms batches of waiting requests for a model's instances and hands out the answers; held by RunningModel.

The one invariant: never more batches in flight than instances, and every request submitted is settled: by an answer,
an error, a deadline, or its client's leaving.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

import structlog

from serving.backends.ray.batch_forming import next_batch
from serving.backends.ray.batch_rules import BatchRules
from serving.backends.ray.served import Executes
from serving.backends.ray.waiting_line import WaitingLine
from serving.backends.ray.work import Work
from serving.errors import Cancelled, DeadlineExceeded, EngineFailed, ReelmeshError, Unavailable, foreign_text
from serving.protocol.oip import InferRequest, InferResponse
from serving.protocol.oip_parameters import timeout_s
from serving.protocol.oip_statistics import ModelStatistics, Times

log = structlog.get_logger()

Answers = Sequence[InferResponse | ReelmeshError]

_FRUITLESS: Final = 3
"""After so many waits for company in which nobody came, a lone client's requests are sent at once."""


class Scheduler:
    """Runs the requests of one version of a model.

    Args:
        name: the model's.
        rules: how its requests wait and join.
        engine: runs batches.
        counts: is told of each batch that was executed.
    """

    def __init__(self, name: str, rules: BatchRules, engine: Executes, counts: ModelStatistics) -> None:
        self._name = name
        self._rules = rules
        self._engine = engine
        self._counts = counts
        self._line = WaitingLine(rules)
        self._running: dict[asyncio.Task[None], Sequence[Work]] = {}
        self._departing: deque[Work] = deque()
        self._answered: dict[Work, InferResponse | ReelmeshError] = {}
        self._woken = False
        self._alarm: asyncio.TimerHandle | None = None
        self._fruitless = 0
        self._closed = False

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._line)

    def retry_after_s(self, more: int) -> int:
        """In how many whole seconds those that wait, and ``more`` behind them, will have been served."""
        return self._line.retry_after_s(more)

    async def run(self, request: InferRequest) -> tuple[InferResponse, Times]:
        """Run one request in some batch; cancelling the caller takes it out.

        Raises:
            ReelmeshError: the engine's, :class:`QueueFull`, or what its timeouts say.
        """
        work = self.submit(request)
        try:
            answer = await work.future
        except asyncio.CancelledError:
            self.drop(work)
            raise
        return answer, work.times

    def submit(self, request: InferRequest) -> Work:
        """Let a request wait for its batch; await the future of what this returns.

        Raises:
            QueueFull: too many wait already.
            Unavailable: it is closed.
        """
        if self._closed:
            raise self._gone()
        loop, rules = asyncio.get_running_loop(), self._rules
        rows = request.inputs[0].shape[0] if rules.most > 1 and request.inputs else 1
        level = rules.level(int(request.parameters.get("priority", 0))) if rules.levels else 0
        work = Work(request, rows, rules.bucket(request), level, loop.time(), loop.create_future())
        self._line.add(work, rules.instances - len(self._running))
        if len(self._line) > 1 or self._running:
            self._fruitless = 0
        self._set_timers(work, loop)
        self._wake()
        return work

    def drop(self, work: Work) -> None:
        """Forget a request whose client has gone; a batch of which nobody is left is cancelled."""
        work.leave()
        if self._line.discard(work):
            self._wake()
            return
        for task, batch in self._running.items():
            if work in batch and all(one.over for one in batch):
                task.cancel()

    async def close(self) -> None:
        """Refuse what waits and cancel what runs."""
        self._closed, gone = True, self._gone()
        for work in list(self._line.in_order(0.0)):
            self._line.discard(work)
            work.settle(gone)
        for task, batch in list(self._running.items()):
            for work in batch:
                work.settle(gone)
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _gone(self) -> Unavailable:
        return Unavailable(f"model '{self._name}' is unloaded")

    def _set_timers(self, work: Work, loop: asyncio.AbstractEventLoop) -> None:
        request = work.request
        if request.deadline_unix_s is not None:
            left_s = request.deadline_unix_s - time.time()
            work.timers.append(loop.call_later(max(0.0, left_s), self._late, work))
        limit_s = self._rules.policy_of(work.level).limit_s(timeout_s(request.parameters))
        if limit_s:
            work.timers.append(loop.call_later(limit_s, self._waited, work))

    def _late(self, work: Work) -> None:
        work.settle(DeadlineExceeded("the request's timeout passed", field="timeout"))
        self.drop(work)

    def _waited(self, work: Work) -> None:
        if work.started_s:
            return
        if self._rules.policy_of(work.level).rejects:
            work.settle(Unavailable("Request timeout expired"))
            self.drop(work)
        else:
            self._line.delay(work)

    def _wake(self) -> None:
        # Once per turn of the loop, so that requests that are read in one turn meet in one batch.
        if not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._form)

    def _form(self) -> None:
        loop = asyncio.get_running_loop()
        self._woken = False
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        while len(self._line) and len(self._running) < self._rules.instances:
            now = loop.time()
            waiting = self._line.in_order(now)
            choice = next_batch(waiting, self._rules, now, patient=self._fruitless < _FRUITLESS)
            if not choice.taken:
                if choice.wait_s is not None:
                    self._alarm = loop.call_later(choice.wait_s, self._form)
                break
            self._start(choice.taken, now)

    def _start(self, batch: Sequence[Work], now: float) -> None:
        for work in batch:
            self._line.discard(work)
            work.started_s = now
        if self._rules.keep_order:
            self._departing.extend(batch)
        if self._rules.delay_s and len(batch) == 1 and now - batch[0].arrived_s >= self._rules.delay_s:
            self._fruitless += 1
        task = asyncio.get_running_loop().create_task(self._run(batch))
        self._running[task] = batch
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        # A task that was cancelled before its first step never came to do this itself.
        for work in self._running.pop(task, ()):
            self._depart(work, Cancelled("nobody waits for the answer"))
        self._wake()

    async def _run(self, batch: Sequence[Work]) -> None:
        began = time.perf_counter()
        answers = await self._execute(batch)
        seconds = time.perf_counter() - began
        # Before the answers go out: a client that asks again at once finds the instance free.
        self._running.pop(_this_task(), None)
        self._line.measured(batch, seconds)
        if any(isinstance(answer, InferResponse) for answer in answers):
            self._counts.batch(sum(work.rows for work in batch), Times(infer_s=seconds))
        for work, answer in zip(batch, answers, strict=True):
            work.times = Times(queue_s=work.started_s - work.arrived_s, infer_s=seconds)
            self._depart(work, answer)

    async def _execute(self, batch: Sequence[Work]) -> Answers:
        try:
            answers = await self._engine.execute([work.request for work in batch])
            if len(answers) == len(batch):
                return answers
            failure: ReelmeshError = EngineFailed(
                f"{self._name}: {len(answers)} answers came back for {len(batch)} requests"
            )
        except asyncio.CancelledError:
            failure = Cancelled("nobody waits for the answer")
        except ReelmeshError as error:
            failure = error
        except Exception as error:  # whatever an engine raises must not end the replica
            log.exception("oip_infer_failed", model=self._name)
            failure = EngineFailed(f"{self._name}: {foreign_text(error)}")
        return [failure] * len(batch)

    def _depart(self, work: Work, answer: InferResponse | ReelmeshError) -> None:
        if not self._rules.keep_order:
            work.settle(answer)
            return
        self._answered[work] = answer
        while self._departing and self._departing[0] in self._answered:
            first = self._departing.popleft()
            first.settle(self._answered.pop(first))


def _this_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  a coroutine that runs has one
    return task
