"""The bounded queue of a model."""

import asyncio
import pickle

import pytest

from serving.backends.ray.batch_rules import BatchRules, QueuePolicy
from serving.backends.ray.waiting_line import WaitingLine
from serving.backends.ray.work import Work
from serving.errors import QueueFull
from serving.protocol.oip import InferRequest


def work(level=0):
    return Work(InferRequest("m"), 1, (), level, 0.0, asyncio.get_running_loop().create_future())


async def test_the_queue_is_bounded_by_level_and_says_when_there_will_be_room():
    line = WaitingLine(BatchRules(instances=2, policies={1: QueuePolicy(size=3)}))
    for _ in range(3):
        line.add(work(1))
    line.add(work(2))
    line.measured([work()] * 4, 8.0)
    with pytest.raises(QueueFull, match="Exceeds maximum queue size") as caught:
        line.add(work(1))
    # 4 wait, and a request keeps one of two instances busy for 2 s.
    assert caught.value.retry_after_s == 4
    assert pickle.loads(pickle.dumps(caught.value)).retry_after_s == 4  # noqa: S301  made here


async def test_those_who_find_an_instance_free_do_not_wait():
    line = WaitingLine(BatchRules(policy=QueuePolicy(size=0)))
    line.add(work(), room=1)
    with pytest.raises(QueueFull):
        line.add(work(), room=1)


async def test_the_delayed_come_after_those_in_time_and_the_cancelled_leave_from_the_middle():
    line = WaitingLine(BatchRules())
    first, second, third = work(), work(), work()
    for each in (first, second, third):
        line.add(each)
    line.delay(first)
    assert list(line.in_order(0.0)) == [second, third, first]
    assert line.discard(third)
    assert not line.discard(third)
    assert len(line) == 2
