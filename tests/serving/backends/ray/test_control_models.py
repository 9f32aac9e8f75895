"""Typed engines of a model set, which requests reach by two ways."""

import asyncio

import pytest

from serving.backends.call import Call
from serving.backends.ray.control_models import TypedEngine
from serving.protocol.tasks import MusicRequest


class Engine:
    """Runs until it is let."""

    def __init__(self):
        self.open, self.closed = asyncio.Event(), False

    async def run(self, request, call):
        await self.open.wait()
        assert not self.closed
        return request

    async def close(self):
        self.closed = True


async def nobody(request):
    raise AssertionError("nothing asks it")


@pytest.fixture
def engine():
    return Engine()


async def test_an_engine_is_closed_when_its_last_typed_request_was_answered(engine):
    typed = TypedEngine(nobody, engine, grace_s=5)
    request = MusicRequest.model_construct()
    asked = [asyncio.create_task(typed.run(request, Call())) for _ in range(2)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(typed.close())
    await asyncio.sleep(0.01)
    assert not engine.closed
    engine.open.set()
    assert await asyncio.gather(*asked) == [request] * 2
    await closing
    assert engine.closed


async def test_an_engine_without_requests_or_whose_time_is_up_is_closed(engine):
    await TypedEngine(nobody, engine, grace_s=5).close()
    assert engine.closed
    late = Engine()
    typed = TypedEngine(nobody, late, grace_s=0.01)
    asked = asyncio.create_task(typed.run(MusicRequest.model_construct(), Call()))
    await asyncio.sleep(0)
    await typed.close()
    assert late.closed
    asked.cancel()
