import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import ChannelNotFoundEntity

from serving.errors import BadInput
from serving.jobs.intake.base import Delivery
from serving.jobs.intake.rabbitmq import REASON, RabbitMq, identity_of, lane_of
from serving.jobs.types import Lane
from serving.settings import IntakeSettings
from tests.servers.wire import wire_to
from tests.serving.jobs.intake.site import film_body, finish, intake_settings, job_of, running, titles, until
from tests.serving.jobs.office import Office


@pytest.fixture
async def channel(rabbitmq_url: str) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(rabbitmq_url) as connection, connection.channel() as opened:
        yield opened


@pytest.fixture
def settings(rabbitmq_url: str) -> IntakeSettings:
    return intake_settings("rabbitmq", rabbitmq_url)


async def send(channel: AbstractChannel, queue: str, body: str | bytes, **properties: Any) -> None:
    """As a producer does that knows the queue's name; the queue is there."""
    content = body if isinstance(body, bytes) else body.encode()
    await channel.default_exchange.publish(aio_pika.Message(content, **properties), queue)


async def made(settings: IntakeSettings) -> None:
    """Have the queues made before anybody takes from them."""
    source = RabbitMq(settings)
    await source.open()
    await source.close()


async def depth(channel: AbstractChannel, queue: str) -> int:
    found = await channel.declare_queue(queue, passive=True)
    return found.declaration_result.message_count or 0


async def take(channel: AbstractChannel, queue: str) -> AbstractIncomingMessage:
    waiting = await channel.get_queue(queue)
    return await until(lambda: waiting.get(no_ack=True, fail=False), timeout_s=15)  # type: ignore[return-value]


async def test_a_message_becomes_a_job_and_its_result_comes_to_the_reply_queue(
    office: Office, channel: AbstractChannel, settings: IntakeSettings
) -> None:
    await made(settings)
    answers = await channel.declare_queue(exclusive=True)
    await send(channel, settings.queue, film_body("mine"), reply_to=answers.name, correlation_id="order-7")
    async with running(office, settings, RabbitMq(settings)):
        await finish(office, await until(lambda: job_of(office, "mine")) or "")
        told = await take(channel, answers.name)
        assert await depth(channel, settings.queue) == 0
    result = json.loads(told.body)
    assert (told.correlation_id, told.type) == ("order-7", "result")
    assert (result["state"], result["output"]["facts"]) == ("completed", {"clips": 1})
    assert await depth(channel, answers.name) == 0, "nothing before the result, unless it was asked for"


async def test_a_producer_that_asks_hears_of_progress_first(
    office: Office, channel: AbstractChannel, settings: IntakeSettings
) -> None:
    await made(settings)
    answers = await channel.declare_queue(exclusive=True)
    wants = {"x-reelmesh-progress": True}
    await send(channel, settings.queue, film_body("slow"), reply_to=answers.name, message_id="m", headers=wants)
    async with running(office, settings, RabbitMq(settings)):
        first = await take(channel, answers.name)
        await finish(office, await job_of(office, "slow") or "")
        while (last := await take(channel, answers.name)).type != "result":
            assert last.correlation_id == "m"
    assert first.type == "progress"
    assert json.loads(first.body)["state"] == "queued"


class DiesBeforeAck(RabbitMq):
    """A consumer that loses its connection after the row is written and before it acknowledges."""

    deaths = 0

    async def ack(self, delivery: Delivery) -> None:
        if self.deaths < 2:
            self.deaths += 1
            await self.close()
        await super().ack(delivery)


async def test_a_message_that_is_delivered_again_since_its_consumer_died_before_the_ack_is_one_job(
    office: Office, channel: AbstractChannel, settings: IntakeSettings
) -> None:
    await made(settings)
    await send(channel, settings.queue, film_body("once"), message_id="m-1")
    source = DiesBeforeAck(settings)
    async with running(office, settings, source):
        await until(lambda: _drained(channel, settings.queue, source))
    assert await titles(office) == ["once"]


async def _drained(channel: AbstractChannel, queue: str, source: DiesBeforeAck) -> bool:
    return source.deaths == 2 and await depth(channel, queue) == 0


async def test_malformed_messages_lie_behind_the_dead_letter_exchange_with_the_reason(
    office: Office, channel: AbstractChannel, settings: IntakeSettings
) -> None:
    await made(settings)
    for body in (b"\xff", film_body("x", clips=-1).encode(), b"[" * 5000, b"x" * 20_000):
        await send(channel, settings.queue, body, message_id="bad", headers={"order": 9})
    async with running(office, settings, RabbitMq(settings)):
        dead = [await take(channel, f"{settings.queue}.dead") for _ in range(4)]
        await until(lambda: _empty(channel, settings.queue))
    reasons = " ".join(str(message.headers[REASON]) for message in dead)
    assert "input.clips" in reasons
    assert "more than 10000" in reasons
    assert {(message.message_id, message.headers["order"]) for message in dead} == {("bad", 9)}
    assert await titles(office) == []


async def _empty(channel: AbstractChannel, queue: str) -> bool:
    return await depth(channel, queue) == 0


async def test_a_dead_letter_that_the_studios_exchange_does_not_route_is_not_lost(
    office: Office, channel: AbstractChannel, rabbitmq_url: str
) -> None:
    settings = intake_settings("rabbitmq", rabbitmq_url)
    settings = settings.model_copy(update={"dead_letter": f"{settings.queue}-graveyard"})
    await channel.declare_exchange(settings.dead_letter, aio_pika.ExchangeType.DIRECT, auto_delete=True)
    await channel.declare_queue(settings.queue, durable=False, auto_delete=True)  # taken as it is
    await send(channel, settings.queue, b"nonsense")
    async with running(office, settings, RabbitMq(settings)):
        assert await until(lambda: _dead_bodies(rabbitmq_url, settings)) == [b"nonsense"]


async def _dead_bodies(url: str, settings: IntakeSettings) -> list[bytes]:
    """What lies in the dead-letter queue, which may not be there yet."""
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        try:
            message = await (await channel.get_queue(f"{settings.queue}.dead")).get(fail=False)
        except ChannelNotFoundEntity:
            return []
        return [] if message is None else [message.body]


async def test_priorities_choose_the_lane_and_come_first(
    office: Office, channel: AbstractChannel, settings: IntakeSettings
) -> None:
    await made(settings)
    for title, priority in (("late", 1), ("plain", 0), ("urgent", 9), ("soon", 7)):
        await send(channel, settings.queue, film_body(title), priority=priority)
    source = RabbitMq(settings.model_copy(update={"prefetch": 1}))
    async with running(office, settings.model_copy(update={"prefetch": 1}), source):
        await until(lambda: _count(office, 4))
    jobs = {job.title: job for job in (await office.store.page()).jobs}
    assert await titles(office) == ["urgent", "soon", "late", "plain"]
    assert [jobs[title].lane for title in ("urgent", "soon", "late")] == [Lane.CRITICAL, Lane.HIGH, Lane.LOW]


async def _count(office: Office, count: int) -> bool:
    return len(await titles(office)) == count


@pytest.mark.parametrize(
    ("priority", "lane"), [(None, None), (0, None), (3, Lane.LOW), (4, Lane.MEDIUM), (255, Lane.CRITICAL)]
)
def test_every_priority_has_its_lane(priority: int | None, lane: Lane | None) -> None:
    assert lane_of(priority) == lane


async def test_a_connection_that_is_cut_is_made_anew(
    office: Office, channel: AbstractChannel, settings: IntakeSettings
) -> None:
    await made(settings)
    async with wire_to(urlsplit(settings.url).port or 0) as wire:
        through = settings.model_copy(update={"url": f"amqp://guest:guest@127.0.0.1:{wire.port}/"})
        async with running(office, through, RabbitMq(through)):
            await send(channel, settings.queue, film_body("before"), message_id="1")
            await until(lambda: _count(office, 1))
            await wire.cut()
            await send(channel, settings.queue, film_body("after"), message_id="2")
            await until(lambda: _count(office, 2))
    assert wire.connections >= 2


def test_a_message_is_known_again_by_its_id_or_by_what_else_sets_it_apart() -> None:
    def identity(body: str = "a film", **marks: Any) -> str:
        return identity_of(aio_pika.Message(body.encode(), **marks))

    assert identity(message_id="m", correlation_id="c") == "m"
    assert identity(correlation_id="c") == identity(correlation_id="c")
    assert identity(timestamp=7) == identity(timestamp=7)
    assert len({identity(correlation_id="c"), identity("another", correlation_id="c"), identity(timestamp=7)}) == 3
    assert identity() != identity(), "two messages without any mark may be two films"


async def test_what_waits_at_the_broker_is_told_and_a_message_given_back_stays(
    channel: AbstractChannel, settings: IntakeSettings
) -> None:
    source = RabbitMq(settings)
    await source.open()
    await send(channel, settings.queue, film_body("a"))
    assert await until(source.waiting) == 1
    delivery = await anext(source.deliveries())
    await source.extend(delivery)
    await source.release(delivery)
    for _ in range(2):
        await source.close()
    assert await until(lambda: depth(channel, settings.queue)) == 1


async def test_a_broker_that_is_not_there_is_told_without_its_password(free_port: int) -> None:
    source = RabbitMq(intake_settings("rabbitmq", f"amqp://me:secret@127.0.0.1:{free_port}/"))
    with pytest.raises(Exception, match=str(free_port)) as caught:
        await source.open()
    assert not isinstance(caught.value, BadInput | asyncio.CancelledError)
    assert "secret" not in str(caught.value)
