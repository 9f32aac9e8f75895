"""Sequences: runs requests that belong together one after another, each sequence in order; held by RunningModel.

The one invariant: of one sequence at most one request is with the engine, and they come to it in order of arrival.
"""

import asyncio
from dataclasses import dataclass, field

from serving.backends.ray.scheduler import Scheduler
from serving.backends.ray.sequence_rules import SequenceRules
from serving.errors import BadInput, QueueFull
from serving.protocol.oip import InferRequest, InferResponse, Parameter, Tensor
from serving.protocol.oip_statistics import Times


@dataclass(slots=True, eq=False)
class _Sequence:
    """One sequence.

    Args:
        turn: held by the request that runs; its waiters queue in order.
        users: requests that run or wait.
        ended: whether its last request has arrived; only a START may follow.
        placed: whether it holds one of the slots.
        states: implicit state by input.
        idle: runs while no request does.
    """

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    ended: bool = False
    placed: bool = False
    states: dict[str, Tensor] = field(default_factory=dict)
    idle: asyncio.TimerHandle | None = None


class Sequences:
    """Runs the sequences of one version of a model.

    Args:
        rules: what they are.
        scheduler: runs requests of different sequences together where it can.
        waiting: requests that wait for their turn, at most.
    """

    def __init__(self, rules: SequenceRules, scheduler: Scheduler, waiting: int) -> None:
        self._rules = rules
        self._scheduler = scheduler
        self._most = waiting
        self._waiting = 0
        self._slots = asyncio.Semaphore(rules.slots)
        self._sequences: dict[Parameter, _Sequence] = {}

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return self._waiting + self._scheduler.waiting

    async def run(self, request: InferRequest) -> tuple[InferResponse, Times]:
        """Run one request after all of its sequence that came before.

        Raises:
            BadInput: it has no sequence, or is its first and does not say START.
            QueueFull: too many wait.
        """
        key = self._rules.sequence_of(request)
        sequence = self._entered(key, request)
        try:
            return await self._in_turn(sequence, request)
        finally:
            sequence.users -= 1
            self._rest(key, sequence)

    async def close(self) -> None:
        """Refuse what waits and cancel what runs."""
        await self._scheduler.close()
        for sequence in self._sequences.values():
            if sequence.idle is not None:
                sequence.idle.cancel()

    def _entered(self, key: Parameter, request: InferRequest) -> _Sequence:
        sequence = self._sequences.get(key)
        starts = bool(request.parameters.get("sequence_start"))
        if not starts and (sequence is None or sequence.ended):
            raise BadInput(
                f"inference request for sequence {str(key)[:256]} to model '{self._rules.model}' must specify the "
                "START flag on the first request of the sequence",
                field="sequence_start",
            )
        if self._waiting >= self._most:
            raise QueueFull("Exceeds maximum queue size", retry_after_s=self._scheduler.retry_after_s(self._waiting))
        if sequence is None:
            sequence = self._sequences[key] = _Sequence()
        if sequence.idle is not None:
            sequence.idle.cancel()
            sequence.idle = None
        sequence.users += 1
        sequence.ended = bool(request.parameters.get("sequence_end"))
        return sequence

    async def _in_turn(self, sequence: _Sequence, request: InferRequest) -> tuple[InferResponse, Times]:
        self._waiting += 1
        waits = True
        try:
            async with sequence.turn:
                if not sequence.placed:
                    await self._slots.acquire()
                    sequence.placed = True
                self._waiting -= 1
                waits = False
                if request.parameters.get("sequence_start"):
                    sequence.states.clear()
                answer, times = await self._scheduler.run(self._rules.prepared(request, sequence.states))
                return self._kept(sequence, answer), times
        finally:
            self._waiting -= waits

    def _kept(self, sequence: _Sequence, answer: InferResponse) -> InferResponse:
        """Keep the states of an answer, and leave out what the client should not see."""
        if not self._rules.states:
            return answer
        outputs = {tensor.name: tensor for tensor in answer.outputs}
        for state in self._rules.states:
            new = outputs.get(state.output)
            if new is not None:
                sequence.states[state.input] = Tensor(state.input, new.datatype, new.shape, new.data)
        shown = tuple(tensor for tensor in answer.outputs if tensor.name in self._rules.outputs)
        return InferResponse(answer.model_name, answer.model_version, answer.id, answer.parameters, shown)

    def _rest(self, key: Parameter, sequence: _Sequence) -> None:
        """End a sequence that has nothing left to do, or give it time to go on."""
        if sequence.users:
            return
        if sequence.ended or not sequence.placed:
            self._end(key, sequence)
        else:
            loop = asyncio.get_running_loop()
            sequence.idle = loop.call_later(self._rules.idle_s, self._end, key, sequence)

    def _end(self, key: Parameter, sequence: _Sequence) -> None:
        del self._sequences[key]
        if sequence.placed:
            self._slots.release()
