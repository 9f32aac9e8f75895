import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel

from serving.jobs.intake.base import Delivery
from serving.jobs.intake.celery_amqp import CeleryAmqp
from serving.jobs.intake.celery_message import Envelope
from serving.jobs.types import Lane
from tests.serving.jobs.intake.celery_studio import Studio, studio
from tests.serving.jobs.intake.site import until


@pytest.fixture
def line(rabbitmq_url: str) -> Iterator[Studio]:
    with studio(rabbitmq_url, "rpc://") as opened:
        yield opened


@pytest.fixture
async def channel(rabbitmq_url: str) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(rabbitmq_url) as connection, connection.channel() as opened:
        yield opened


def of(envelope: Envelope) -> Delivery:
    return Delivery(id="", body=b"", handle=envelope.handle)


async def depth(channel: AbstractChannel, queue: str) -> int:
    return (await channel.declare_queue(queue, passive=True)).declaration_result.message_count or 0


@pytest.mark.parametrize("first", ["mesh", "client"])
async def test_mesh_and_client_declare_the_queue_alike(line: Studio, first: str) -> None:
    broker = CeleryAmqp(line.settings)
    if first == "client":
        await line.send("a")
    await broker.open()
    await line.send("b")
    assert await until(broker.waiting) >= 1  # type: ignore[operator]
    await broker.close()


async def test_a_queue_of_the_studios_own_is_taken_as_it_is(line: Studio, channel: AbstractChannel) -> None:
    await channel.declare_queue(line.settings.queue, durable=True, arguments={"x-max-priority": 5})
    settings = line.settings.model_copy(update={"url": f"py{line.settings.url}"})
    broker = CeleryAmqp(settings)
    await broker.open()
    await channel.default_exchange.publish(aio_pika.Message(b"x", priority=5), line.settings.queue)
    assert (await anext(broker.envelopes())).body == b"x"
    await broker.close()


async def test_messages_that_wait_for_their_time_take_up_no_prefetch(line: Studio) -> None:
    for number in range(12):
        await line.send(str(number))
    broker = CeleryAmqp(line.settings.model_copy(update={"prefetch": 2}))
    await broker.open()
    envelopes = broker.envelopes()
    soon = time.time() + 1.5
    for _ in range(12):
        await broker.postpone(of(await anext(envelopes)), soon)
    await line.send("now")
    assert b"now" in (await anext(envelopes)).body
    assert time.time() < soon
    later = [await anext(envelopes) for _ in range(12)]
    assert time.time() >= soon
    assert len({envelope.handle.delivery_tag for envelope in later}) == 12
    await broker.close()


async def test_no_more_than_a_bound_of_messages_are_held(line: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.jobs.intake.celery_amqp.MAX_HELD", 3)
    for number in range(12):
        await line.send(str(number))
    broker = CeleryAmqp(line.settings.model_copy(update={"prefetch": 2}))
    await broker.open()
    envelopes = broker.envelopes()
    for _ in range(4):
        await broker.postpone(of(await anext(envelopes)), time.time() + 0.5)
    assert await until(broker.waiting) >= 12 - 3 - 2 * 2  # type: ignore[operator]
    for _ in range(4):  # those that were held, whose time has come
        await broker.ack(of(await anext(envelopes)))
    assert await anext(envelopes)
    await broker.close()


async def test_a_message_that_is_held_for_long_is_put_into_the_queue_anew(line: Studio) -> None:
    await line.send("a", countdown=100, priority=3)
    broker = CeleryAmqp(line.settings, hold_s=0.1)
    await broker.open()
    envelopes = broker.envelopes()
    first = await anext(envelopes)
    await broker.postpone(of(first), time.time() + 100)
    again = await anext(envelopes)
    assert again == first, "in all that the client wrote"
    assert (again.attempt, again.lane) == (1, Lane.LOW)
    assert again.handle.delivery_tag != first.handle.delivery_tag
    await broker.postpone(of(again), time.time() + 100)
    await broker.close()
    assert broker._timers == {}


async def test_a_closed_channel_is_told(line: Studio, channel: AbstractChannel) -> None:
    broker = CeleryAmqp(line.settings)
    await broker.open()
    envelopes: Any = broker.envelopes()
    await line.send("a")
    envelope = await anext(envelopes)
    await broker.close()
    with pytest.raises(ConnectionError, match="closed the channel"):
        await anext(envelopes)
    assert envelope.handle is not None
    assert await until(lambda: depth(channel, line.settings.queue)) == 1
