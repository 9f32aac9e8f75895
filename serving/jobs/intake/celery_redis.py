"""CeleryRedis: the messages of a Celery queue on Redis, taken in one step; what the Celery intake takes from there.

The one invariant: a message is either in the queue's lists or among those that are held, never in a process alone: a
worker of Celery's pops it first and writes that down later, and what lies between is lost when it dies.
"""

import asyncio
import base64
import binascii
import json
import time
from collections.abc import AsyncGenerator
from typing import Any, Final
from uuid import uuid4

import redis.asyncio as redis
from pydantic import JsonValue
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript

from serving.errors import BadInput, TooLarge, foreign_text
from serving.jobs.intake.base import Delivery
from serving.jobs.intake.celery_message import MAX_BYTES, Envelope
from serving.jobs.types import Lane
from serving.protocol.oip_json import parse_object
from serving.settings import IntakeSettings

VISIBLE_AFTER_S: Final = 60.0
"""A message that a process holds without a word for so long goes back to the queue: the process died."""
POLL_S: Final = 0.1
"""How often an empty queue is looked at: no command of Redis waits and writes down what it took."""
MAX_DEAD: Final = 10_000
"""Messages kept in the dead-letter queue; the oldest go first."""
REASON: Final = "x-reelmesh-reason"
LEAST_URGENT: Final = 6
"""From this priority on a job is of the low lane: on Redis 0 is the most urgent, and what nobody set."""
_SEPARATOR: Final = "\x06\x16"
_PRIORITIES: Final = range(1, 10)
_ANSWER_S: Final = 10.0

_TAKE: Final = """
local again = redis.call('HGET', KEYS[1], ARGV[1])
if again then
    return again:sub(3)
end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 100)
for place = #due, 1, -1 do
    local held = redis.call('HGET', KEYS[1], due[place])
    if held then
        redis.call('RPUSH', KEYS[tonumber(held:sub(1, 2))], held:sub(3))
    end
    redis.call('HDEL', KEYS[1], due[place])
    redis.call('ZREM', KEYS[2], due[place])
end
for list = 3, #KEYS do
    local message = redis.call('RPOP', KEYS[list])
    if message then
        redis.call('HSET', KEYS[1], ARGV[1], string.format('%02d', list) .. message)
        redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[1])
        return message
    end
end
return false
"""
"""Put back what is due, then take the next message: the first of the most urgent list that is not empty.

A client library that lost the answer asks again under the same tag, and gets the same message.
"""


class CeleryRedis:
    """A queue as kombu keeps it on Redis: a list for every priority.

    Held messages lie in the hash ``<queue>.reelmesh``, and ``<queue>.reelmesh.due`` tells when each goes back: apart
    from those of Celery's workers, whose time for that is the same for all queues of a database.

    Args:
        settings: of the intake; ``dead_letter`` names a queue.
        visible_after_s: see :data:`VISIBLE_AFTER_S`.
    """

    def __init__(self, settings: IntakeSettings, *, visible_after_s: float = VISIBLE_AFTER_S) -> None:
        self._url = settings.url
        self._lists = [settings.queue, *(f"{settings.queue}{_SEPARATOR}{number}" for number in _PRIORITIES)]
        self._held, self._due = f"{settings.queue}.reelmesh", f"{settings.queue}.reelmesh.due"
        self._dead = settings.dead_letter or f"{settings.queue}.dead"
        self._visible_after_s = visible_after_s
        self.extend_s: float | None = visible_after_s / 3
        self._own: set[str] = set()
        self._ahead_s = 0.0  # Redis' clock before this machine's
        self._redis: redis.Redis | None = None
        self._take: AsyncScript | None = None

    @property
    def _client(self) -> redis.Redis:
        if self._redis is None:
            raise ConnectionError("not connected")
        return self._redis

    async def open(self) -> None:
        """Connect, and put back what this process held when it lost the last connection."""
        self._redis = redis.Redis.from_url(
            self._url,
            socket_connect_timeout=_ANSWER_S,
            socket_timeout=_ANSWER_S,
            health_check_interval=30,
            retry=Retry(NoBackoff(), 1),  # pauses are the runner's
        )
        self._take = self._redis.register_script(_TAKE)
        seconds, microseconds = await self._redis.time()
        self._ahead_s = seconds + microseconds / 1e6 - time.time()
        await self._give_back()

    async def close(self) -> None:
        """Disconnect; what was taken and not settled goes back."""
        client = self._redis
        if client is not None:
            try:
                await self._give_back()
            finally:
                self._redis = None
                await client.aclose()

    async def _give_back(self) -> None:
        if self._own:
            await self._client.zadd(self._due, dict.fromkeys(self._own, 0.0), xx=True)
        self._own.clear()

    async def envelopes(self) -> AsyncGenerator[Envelope, None]:
        """Messages as they come, for ever."""
        while True:
            tag = uuid4().hex
            self._own.add(tag)
            message = await self._taken(tag)
            if message is None:
                self._own.discard(tag)
                await asyncio.sleep(POLL_S)
            else:
                yield _envelope(message, tag)

    async def _taken(self, tag: str) -> bytes | None:
        if self._take is None:
            raise ConnectionError("not connected")
        found: bytes | None = await self._take(
            keys=[self._held, self._due, *self._lists], args=[tag, self._visible_after_s]
        )
        return found

    async def ack(self, delivery: Delivery) -> None:
        """Drop the message."""
        async with self._client.pipeline(transaction=True) as together:
            await self._drop(together, delivery).execute()

    def _drop(self, together: Any, delivery: Delivery) -> Any:  # noqa: ANN401  redis' pipeline, which has few types
        tag = delivery.handle[0]
        self._own.discard(tag)
        return together.hdel(self._held, tag).zrem(self._due, tag)

    async def reject(self, delivery: Delivery, reason: str) -> None:
        """Move the message, with the reason as a header, to the dead-letter queue, at once."""
        async with self._client.pipeline(transaction=True) as together:
            together.lpush(self._dead, _dead_letter(delivery.handle[1], reason))
            together.ltrim(self._dead, 0, MAX_DEAD - 1)
            await self._drop(together, delivery).execute()

    async def release(self, delivery: Delivery) -> None:
        """Have the message back in the queue at the next look of anybody."""
        await self._put_off(delivery, 0.0)

    async def extend(self, delivery: Delivery) -> None:
        """Keep the message for as long again."""
        await self._put_off(delivery, time.time() + self._ahead_s + self._visible_after_s)

    async def postpone(self, delivery: Delivery, until: float) -> None:
        """Leave the message with Redis, which gives it to whoever looks after that time."""
        await self._put_off(delivery, until + self._ahead_s)
        self._own.discard(delivery.handle[0])

    async def _put_off(self, delivery: Delivery, until: float) -> None:
        await self._client.zadd(self._due, {delivery.handle[0]: until}, xx=True)

    async def waiting(self) -> int | None:
        """Messages in the lists; not those that nobody may have yet."""
        async with self._client.pipeline(transaction=False) as together:
            for name in self._lists:
                together.llen(name)
            lengths: list[int] = await together.execute()
        return sum(lengths)


def lane_of(priority: object) -> Lane | None:
    """Low from :data:`LEAST_URGENT` on; before it, the job type's own lane.

    A lane for every step would put a message of priority 3 before one of 0, which is more urgent and which no step
    can be given, since it is what a message has that nobody gave a priority.
    """
    return Lane.LOW if isinstance(priority, int) and priority >= LEAST_URGENT else None


def _envelope(message: bytes, tag: str) -> Envelope:
    try:
        fields = _fields(message)
        properties = fields.get("properties")
        known: dict[str, Any] = properties if isinstance(properties, dict) else {}
        headers = fields.get("headers")
        return Envelope(
            headers=headers if isinstance(headers, dict) else {},
            body=_body(fields.get("body"), known.get("body_encoding")),
            content_type=_text(fields.get("content-type")),
            content_encoding=_text(fields.get("content-encoding")),
            reply_to=_text(known.get("reply_to")),
            correlation_id=_text(known.get("correlation_id")),
            lane=lane_of(known.get("priority")),
            handle=(tag, message),
        )
    except BadInput as error:
        return Envelope({}, b"", problem=error, handle=(tag, message))


def _fields(message: bytes) -> dict[str, JsonValue]:
    if len(message) > 2 * MAX_BYTES:  # the body is written in base64 in there
        raise TooLarge(f"the message has more than {2 * MAX_BYTES} bytes", field="body")
    return parse_object(message, "message")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _body(value: object, encoding: object) -> bytes:
    if not isinstance(value, str):
        raise BadInput("the message has no body", field="body")
    try:
        return base64.b64decode(value) if encoding == "base64" else value.encode()
    except (binascii.Error, ValueError) as error:
        raise BadInput("the body is no base64", field="body") from error


def _dead_letter(message: bytes, reason: str) -> bytes:
    """The message with the reason, as kombu reads it; what is no message at all becomes the body of one."""
    try:
        fields: dict[str, Any] = _fields(message)
    except BadInput:
        fields = {"body": base64.b64encode(message).decode(), "content-type": "application/octet-stream"}
        fields |= {"content-encoding": "binary", "properties": {"body_encoding": "base64", "delivery_tag": uuid4().hex}}
        fields["properties"]["delivery_info"] = {"exchange": "", "routing_key": ""}
    headers = fields.get("headers")
    fields["headers"] = {**(headers if isinstance(headers, dict) else {}), REASON: foreign_text(reason)}
    return json.dumps(fields).encode()
