import base64
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis.asyncio as redis

from serving.jobs.intake.base import Delivery
from serving.jobs.intake.celery_message import MAX_BYTES, Envelope
from serving.jobs.intake.celery_redis import CeleryRedis, lane_of
from serving.jobs.types import Lane
from tests.serving.jobs.intake.celery_studio import Studio, studio
from tests.serving.jobs.intake.site import until


@pytest.fixture
def line(redis_url: str) -> Iterator[Studio]:
    with studio(redis_url, redis_url) as opened:
        yield opened


@pytest.fixture
async def broker(line: Studio) -> AsyncIterator[CeleryRedis]:
    opened = CeleryRedis(line.settings)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.Redis]:
    async with redis.Redis.from_url(redis_url) as opened:
        yield opened


def of(envelope: Envelope) -> Delivery:
    return Delivery(id="", body=b"", handle=envelope.handle)


async def take(broker: CeleryRedis) -> Envelope:
    return await anext(broker.envelopes())


async def test_messages_of_every_priority_are_taken_most_urgent_first_and_oldest_first(
    line: Studio, broker: CeleryRedis
) -> None:
    line.app.conf.broker_transport_options["priority_steps"] = list(range(10))  # not kombu's own, which are a third
    for title, priority in (("late", 9), ("soon", 1), ("first", 0), ("second", 0)):
        await line.send(title, priority=priority)
    assert await broker.waiting() == 4
    taken = [json.loads((await take(broker)).body)[1]["title"] for _ in range(4)]
    assert taken == ["first", "second", "soon", "late"]


async def test_one_that_asks_again_since_the_answer_was_lost_gets_the_same_message(
    line: Studio, broker: CeleryRedis
) -> None:
    for title in ("a", "b"):
        await line.send(title)
    assert await broker._taken("tag") == await broker._taken("tag")
    assert await broker.waiting() == 1


async def test_what_a_dead_process_held_goes_back(line: Studio, broker: CeleryRedis) -> None:
    dying = CeleryRedis(line.settings, visible_after_s=0.2)
    await dying.open()
    for title in ("a", "b", "c"):
        await line.send(title)
    await take(dying)
    await take(dying)
    dying._own.clear()  # it dies, and so gives nothing back
    await dying.close()
    assert await broker.waiting() == 1
    taken = [json.loads((await take(broker)).body)[1]["title"] for _ in range(3)]
    assert sorted(taken) == ["a", "b", "c"]


async def test_a_held_message_is_kept_as_long_as_it_is_extended(line: Studio, broker: CeleryRedis) -> None:
    holder = CeleryRedis(line.settings, visible_after_s=0.3)
    await holder.open()
    await line.send("a")
    delivery = of(await take(holder))
    until_s = time.monotonic() + 0.7
    while time.monotonic() < until_s:
        await holder.extend(delivery)
        assert await broker._taken("another") is None
    await holder.release(delivery)
    assert await broker._taken("another") is not None
    await holder.close()


async def test_a_connection_that_was_lost_gives_back_what_it_held_when_it_is_made_anew(
    line: Studio, client: redis.Redis
) -> None:
    broker = CeleryRedis(line.settings)
    await broker.open()
    await line.send("a")
    await take(broker)
    await broker._client.aclose()
    broker._redis = None
    await broker.close()
    await broker.open()
    assert json.loads((await take(broker)).body)[1]["title"] == "a"
    await broker.close()
    assert await client.llen(line.settings.queue) == 0, "it is put back by whoever looks next"
    assert await client.zscore(f"{line.settings.queue}.reelmesh.due", (await held(client, line))[0]) == 0


async def held(client: redis.Redis, line: Studio) -> list[bytes]:
    return list(await client.hkeys(f"{line.settings.queue}.reelmesh"))


async def test_a_postponed_message_lies_with_redis_and_comes_to_whoever_looks_then(
    line: Studio, broker: CeleryRedis, client: redis.Redis
) -> None:
    await line.send("a")
    other = CeleryRedis(line.settings)
    await other.open()
    delivery = of(await take(other))
    await other.postpone(delivery, time.time() + 0.3)
    await other.close()
    assert await broker._taken("early") is None
    assert len(await held(client, line)) == 1
    taken = await take(broker)
    await broker.ack(of(taken))
    assert await client.keys(f"{line.settings.queue}.reelmesh*") == []


ODD: dict[str, tuple[Any, str]] = {
    "no_json": (b"\xff\x00", "not valid JSON"),
    "a_list": (b"[]", "must be a JSON object"),
    "no_body": ({"headers": {"id": "x"}}, "no body"),
    "no_base64": ({"body": "a", "properties": {"body_encoding": "base64"}}, "no base64"),
    "too_large": (b" " * (2 * MAX_BYTES + 1), "more than"),
}


@pytest.mark.parametrize(("message", "problem"), ODD.values(), ids=ODD)
async def test_what_kombu_never_wrote_becomes_a_dead_letter_that_kombu_can_read(
    line: Studio, broker: CeleryRedis, client: redis.Redis, message: Any, problem: str
) -> None:
    raw = message if isinstance(message, bytes) else json.dumps(message).encode()
    await client.lpush(line.settings.queue, raw)
    envelope = await take(broker)
    assert problem in str(envelope.problem)
    await broker.reject(of(envelope), "no reason")
    dead = json.loads(await client.lindex(f"{line.settings.queue}.dead", 0))
    assert dead["headers"]["x-reelmesh-reason"] == "no reason"
    if isinstance(message, bytes) and message != b"[]":
        assert base64.b64decode(dead["body"]) == raw
        assert (await line.take(f"{line.settings.queue}.dead"))[0].headers["x-reelmesh-reason"] == "no reason"
    assert await held(client, line) == []


async def test_a_plain_body_is_read(client: redis.Redis, line: Studio, broker: CeleryRedis) -> None:
    plain = {"body": "[[], {}, {}]", "headers": {"id": "x"}, "properties": {"body_encoding": "utf-8", "priority": 9}}
    await client.lpush(line.settings.queue, json.dumps(plain))
    envelope = await take(broker)
    assert (envelope.body, envelope.lane, envelope.reply_to) == (b"[[], {}, {}]", Lane.LOW, None)


@pytest.mark.parametrize(("priority", "lane"), [(None, None), (0, None), (5, None), (6, Lane.LOW), ("9", None)])
def test_only_the_least_urgent_priorities_have_a_lane(priority: object, lane: Lane | None) -> None:
    assert lane_of(priority) == lane


async def test_nothing_is_done_where_nobody_is_connected(line: Studio) -> None:
    broker = CeleryRedis(line.settings)
    await broker.close()
    with pytest.raises(ConnectionError, match="not connected"):
        await until(broker.waiting)
    with pytest.raises(ConnectionError, match="not connected"):
        await take(broker)
