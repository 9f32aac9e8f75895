"""The scheduler with engines that can be held."""

import asyncio
import time

import numpy as np
import pytest

from serving.backends.ray.batch_rules import BatchRules, QueuePolicy
from serving.backends.ray.scheduler import Scheduler
from serving.errors import BadInput, DeadlineExceeded, EngineFailed, QueueFull, Unavailable
from serving.protocol.oip import InferRequest, InferResponse, Tensor
from serving.protocol.oip_statistics import ModelStatistics


class Gate:
    """An engine whose batches end when they are let."""

    def __init__(self):
        self.batches = []
        self.most_at_once = 0
        self.running = 0
        self.open = asyncio.Event()
        self.cancelled = 0

    async def execute(self, requests):
        self.batches.append([request.id for request in requests])
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        if requests[0].parameters.get("fail"):
            raise RuntimeError("no such thing")
        if requests[0].parameters.get("short"):
            return []
        return [
            BadInput("not this one") if request.parameters.get("bad") else InferResponse("m", id=request.id)
            for request in requests
        ]


def ask(name, rows=1, width=2, **given):
    tensor = Tensor.from_array("X", np.zeros((rows, width), np.float32))
    return InferRequest("m", "1", name, given.pop("parameters", {}), (tensor,), **given)


@pytest.fixture
def gate():
    return Gate()


def scheduler(gate, **rules):
    return Scheduler("m", BatchRules(**({"joins": True, "most": 4} | rules)), gate, ModelStatistics())


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_waits_while_the_instance_is_busy_becomes_one_batch(gate):
    under = scheduler(gate)
    works = [under.submit(ask("first"))]
    await settle()
    works += [under.submit(ask(str(index))) for index in range(5)]
    await settle()
    assert gate.batches == [["first"]]
    gate.open.set()
    answers = await asyncio.gather(*(work.future for work in works))
    assert [answer.id for answer in answers] == ["first", "0", "1", "2", "3", "4"]
    assert gate.batches == [["first"], ["0", "1", "2", "3"], ["4"]]
    assert gate.most_at_once == 1


async def test_as_many_batches_run_as_there_are_instances(gate):
    under = scheduler(gate, joins=False, instances=2)
    works = [under.submit(ask(str(index))) for index in range(5)]
    await settle()
    assert gate.most_at_once == len(gate.batches) == 2
    gate.open.set()
    await asyncio.gather(*(work.future for work in works))


async def test_requests_wait_for_company_but_no_longer_than_the_delay(gate):
    under = scheduler(gate, delay_s=0.05)
    gate.open.set()
    began = time.monotonic()
    works = [under.submit(ask("a"))]
    await asyncio.sleep(0.02)
    works.append(under.submit(ask("b")))
    await asyncio.gather(*(work.future for work in works))
    assert gate.batches == [["a", "b"]]
    assert 0.04 < time.monotonic() - began < 1


async def test_a_lone_client_stops_waiting_and_starts_again_when_it_is_no_longer_alone(gate):
    under = scheduler(gate, delay_s=0.02)
    gate.open.set()
    for index in range(3):
        await under.submit(ask(str(index))).future
    began = time.monotonic()
    await under.submit(ask("alone")).future
    assert time.monotonic() - began < 0.02
    works = [under.submit(ask("x")), under.submit(ask("y"))]
    await asyncio.gather(*(work.future for work in works))
    assert gate.batches[-1] == ["x", "y"]


async def test_a_full_queue_refuses(gate):
    under = scheduler(gate, policy=QueuePolicy(size=1))
    under.submit(ask("runs"))
    await settle()
    under.submit(ask("waits"))
    with pytest.raises(QueueFull, match="Exceeds maximum queue size"):
        under.submit(ask("refused"))
    await under.close()


async def test_responses_leave_in_the_order_of_requests_where_that_is_asked(gate):
    left = []
    slow, quick = asyncio.Event(), asyncio.Event()

    class Uneven(Gate):
        async def execute(self, requests):
            await (slow if requests[0].id == "slow" else quick).wait()
            return [InferResponse("m", id=request.id) for request in requests]

    under = scheduler(Uneven(), joins=False, instances=2, keep_order=True)
    for name in ("slow", "quick"):
        under.submit(ask(name)).future.add_done_callback(lambda done: left.append(done.result().id))
    quick.set()
    await settle()
    assert left == []
    slow.set()
    await asyncio.sleep(0.01)
    assert left == ["slow", "quick"]


@pytest.mark.parametrize(
    ("parameters", "kind"),
    [({"fail": True}, EngineFailed), ({"short": True}, EngineFailed), ({"bad": True}, BadInput)],
    ids=["raises", "answers-too-few", "answers-an-error"],
)
async def test_errors_reach_their_requests_and_the_scheduler_goes_on(gate, parameters, kind):
    gate.open.set()
    under = scheduler(gate, joins=False)
    with pytest.raises(kind):
        await under.submit(ask("a", parameters=parameters)).future
    assert (await under.submit(ask("b")).future).id == "b"


async def test_time_in_the_queue_ends_in_refusal_or_in_being_put_last(gate):
    policies = {1: QueuePolicy(timeout_s=0.01), 2: QueuePolicy(timeout_s=0.01, rejects=False)}
    under = scheduler(gate, joins=False, levels=2, default_level=2, policies=policies)
    running = under.submit(ask("runs"))
    await settle()
    refused = under.submit(ask("refused", parameters={"priority": 1}))
    delayed = under.submit(ask("delayed"))
    await asyncio.sleep(0.05)
    fresh = under.submit(ask("fresh"))
    with pytest.raises(Unavailable, match="Request timeout expired"):
        await refused.future
    gate.open.set()
    await asyncio.gather(running.future, delayed.future, fresh.future)
    assert gate.batches == [["runs"], ["fresh"], ["delayed"]]


async def test_a_deadline_ends_waiting_and_running_requests(gate):
    under = scheduler(gate)
    works = [under.submit(ask(name, deadline_unix_s=time.time() + 0.02)) for name in ("a", "b")]
    await settle()
    works.append(under.submit(ask("c", deadline_unix_s=time.time() - 1)))
    for work in works:
        with pytest.raises(DeadlineExceeded):
            await work.future
    await settle()
    assert gate.cancelled == 1
    assert under.waiting == 0


async def test_a_batch_is_cancelled_when_nobody_of_it_is_left(gate):
    under = scheduler(gate)
    first, second, third = under.submit(ask("a")), under.submit(ask("b")), under.submit(ask("c", width=9))
    await settle()
    under.drop(first)
    under.drop(third)
    await settle()
    assert gate.cancelled == 0
    assert under.waiting == 0
    under.drop(second)
    await settle()
    assert gate.cancelled == 1
    for work in (first, second, third):
        assert work.future.cancelled()


async def test_closing_settles_everything(gate):
    under = scheduler(gate)
    works = [under.submit(ask("runs"))]
    await settle()
    works.append(under.submit(ask("waits")))
    await under.close()
    for work in works:
        with pytest.raises(Unavailable, match="unloaded"):
            await work.future
    assert gate.cancelled == 1


async def test_a_batch_cancelled_before_its_first_step_holds_up_no_response_after_it(gate):
    under = scheduler(gate, keep_order=True)
    first = under.submit(ask("first"))
    asyncio.get_running_loop().call_soon(under.drop, first)  # comes between the forming of its batch and its start
    await settle()
    gate.open.set()
    assert (await asyncio.wait_for(under.run(ask("second")), 1))[0].id == "second"
    assert gate.batches == [["second"]]


async def test_what_comes_after_the_close_is_refused(gate):
    under = scheduler(gate)
    await under.close()
    with pytest.raises(Unavailable, match="model 'm' is unloaded"):
        under.submit(ask("late"))


async def test_rows_of_a_request_that_joins_no_other_are_counted_too(gate):
    counts = ModelStatistics()
    under = Scheduler("m", BatchRules(joins=False, most=4), gate, counts)
    gate.open.set()
    await under.run(ask("wide", rows=3))
    assert list(counts.batches) == [3]
