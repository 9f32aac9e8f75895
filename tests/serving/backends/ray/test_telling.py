"""Progress beside an answer: told when it moves, not too often, and nothing is left behind."""

import asyncio
import contextlib

import pytest

from serving.backends.call import Call
from serving.backends.ray.telling import told
from serving.errors import BadInput


async def test_progress_comes_before_the_answer() -> None:
    call = Call()

    async def work() -> str:
        for done in range(1, 5):
            call.tell(done / 4)
            await asyncio.sleep(0.3)
        return "answer"

    *pieces, answer = [piece async for piece in told(call, work)]
    assert answer == "answer"
    assert pieces == [0.25, 0.5, 0.75, 1.0]


async def test_a_thread_may_tell_and_many_steps_are_few_pieces() -> None:
    call = Call()

    def steps() -> None:
        for done in range(10_000):
            call.tell(done / 10_000)

    pieces = [piece async for piece in told(call, lambda: asyncio.to_thread(steps))]
    assert pieces[-1] is None
    assert len(pieces) < 100


async def test_an_error_ends_the_stream() -> None:
    async def work() -> str:
        raise BadInput("no")

    with pytest.raises(BadInput):
        _ = [piece async for piece in told(Call(), work)]


async def test_a_caller_that_goes_away_cancels_the_work() -> None:
    call, over = Call(), asyncio.Event()

    async def work() -> str:
        call.tell(0.5)
        try:
            await asyncio.sleep(60)
        finally:
            over.set()
        return "never"

    async with contextlib.aclosing(told(call, work)) as pieces:
        assert await anext(pieces) == 0.5
    assert over.is_set()
    assert call.on_progress is None
