"""Work: one request on its way through a scheduler; made by RunningModel.

The one invariant: its future is settled once, by whoever comes first: the engine, a deadline, or its client going away.
"""

import asyncio
from dataclasses import dataclass, field

from serving.errors import ReelmeshError
from serving.protocol.oip import InferRequest, InferResponse
from serving.protocol.oip_statistics import Times


@dataclass(slots=True, eq=False)
class Work:
    """One request.

    Args:
        request: checked.
        rows: its batch size; 1 for a model without batches.
        bucket: equal for requests that may share a batch.
        level: its priority.
        arrived_s: when it came, by the loop's clock.
        future: its answer.
        started_s: when its batch was formed, by the loop's clock; 0 while it waits.
        times: what it spent where.
        timers: to cancel once it is answered.
    """

    request: InferRequest
    rows: int
    bucket: object
    level: int
    arrived_s: float
    future: asyncio.Future[InferResponse]
    started_s: float = 0.0
    times: Times = field(default_factory=Times)
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.future.done()

    def leave(self) -> None:
        """Nobody waits for the answer any more."""
        self._stop_timers()
        self.future.cancel()

    def settle(self, answer: InferResponse | ReelmeshError) -> None:
        """Answer, unless that has happened."""
        self._stop_timers()
        if self.future.done():
            return
        if isinstance(answer, ReelmeshError):
            self.future.set_exception(answer)
        else:
            self.future.set_result(answer)

    def _stop_timers(self) -> None:
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()
