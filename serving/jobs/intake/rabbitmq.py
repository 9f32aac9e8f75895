"""RabbitMq: jobs from a RabbitMQ queue, answers to wherever a message says; an intake's source.

The one invariant: a message is off its queue only once its job is durable or the broker has confirmed it as a dead
letter.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from uuid import uuid4

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, AbstractMessage, AbstractQueue
from aio_pika.exceptions import ChannelNotFoundEntity, DeliveryError
from pydantic import JsonValue

from serving.errors import foreign_text
from serving.jobs.intake.base import Delivery, answer_of, progress_of
from serving.jobs.records import EventRecord, JobRecord
from serving.jobs.types import Lane
from serving.settings import IntakeSettings

MAX_PRIORITY: Final = 10
"""Of the queues that the mesh makes; RabbitMQ keeps a line for each."""
MAX_DEAD: Final = 10_000
"""Messages kept in a dead-letter queue that the mesh made; the oldest go first."""
REASON: Final = "x-reelmesh-reason"
WANTS_PROGRESS: Final = "x-reelmesh-progress"
_ANSWER_S: Final = 10.0
_LANES: Final = ((9, Lane.CRITICAL), (7, Lane.HIGH), (4, Lane.MEDIUM), (1, Lane.LOW))


class RabbitMq:
    """A queue; made with priorities and a dead-letter exchange if it is not there, else taken as it is.

    Args:
        settings: of the intake; ``dead_letter`` names an exchange.
    """

    holds = False
    extend_s: float | None = None  # the broker keeps a message for its connection, however long

    def __init__(self, settings: IntakeSettings) -> None:
        self._url = settings.url
        self._name = settings.queue
        self._prefetch = settings.prefetch
        self._dead = settings.dead_letter or f"{settings.queue}.dead"
        self._dead_queue = f"{settings.queue}.dead"
        self._connection: AbstractConnection | None = None
        self._channels: tuple[AbstractChannel, AbstractChannel] | None = None

    @property
    def _taking(self) -> AbstractChannel:
        """The channel that messages come by."""
        return self._both[0]

    @property
    def _sending(self) -> AbstractChannel:
        """The channel that answers and dead letters go by; the broker confirms each, or returns it."""
        return self._both[1]

    @property
    def _both(self) -> tuple[AbstractChannel, AbstractChannel]:
        if self._channels is None:
            raise ConnectionError("not connected")
        return self._channels

    async def open(self) -> None:
        """Connect, and make the queue, the dead-letter exchange and its queue where they are missing."""
        self._connection = await aio_pika.connect(self._url, timeout=_ANSWER_S)
        await self._make_dead_letter()
        await self._make_queue()
        taking = await self._connection.channel()
        await taking.set_qos(prefetch_count=self._prefetch)
        self._channels = (taking, await self._connection.channel(on_return_raises=True))

    async def _make_dead_letter(self) -> None:
        if not await self._exists("exchange", self._dead):
            async with self._spare() as channel:
                await channel.declare_exchange(self._dead, aio_pika.ExchangeType.FANOUT, durable=True)
                await (await self._make_dead_queue(channel)).bind(self._dead)

    async def _make_dead_queue(self, channel: AbstractChannel) -> AbstractQueue:
        return await channel.declare_queue(self._dead_queue, durable=True, arguments={"x-max-length": MAX_DEAD})

    async def _make_queue(self) -> None:
        # A declaration that differs from what is there fails, so one that is there is not declared.
        if not await self._exists("queue", self._name):
            async with self._spare() as channel:
                arguments: dict[str, Any] = {"x-max-priority": MAX_PRIORITY, "x-dead-letter-exchange": self._dead}
                await channel.declare_queue(self._name, durable=True, arguments=arguments)

    async def _exists(self, what: str, name: str) -> bool:
        """Whether it is at the broker, which ends the channel of whoever asks for what is not."""
        try:
            async with self._spare() as channel:
                if what == "queue":
                    await channel.declare_queue(name, passive=True)
                else:
                    await channel.get_exchange(name, ensure=True)
        except ChannelNotFoundEntity:
            return False
        return True

    def _spare(self) -> AbstractChannel:
        if self._connection is None:
            raise ConnectionError("not connected")
        return self._connection.channel()

    async def close(self) -> None:
        """Disconnect; the broker puts what is not acknowledged back."""
        connection, self._connection, self._channels = self._connection, None, None
        if connection is not None:
            await connection.close()

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """Messages, at most ``prefetch`` of them not acknowledged."""
        channel = self._taking
        inbox: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()

        def ended(*_: object) -> None:
            inbox.put_nowait(None)

        channel.close_callbacks.add(ended)
        queue = await channel.get_queue(self._name)
        await queue.consume(inbox.put)
        while (message := await inbox.get()) is not None:
            yield _delivery(message)
        raise ConnectionError("the broker closed the channel")

    async def ack(self, delivery: Delivery) -> None:
        """Take the message off the queue."""
        await _message(delivery).ack()

    async def reject(self, delivery: Delivery, reason: str) -> None:
        """Publish the message, with the reason in a header, to the dead-letter exchange, then acknowledge it."""
        message = _message(delivery)
        dead = _dead_letter(message, self._name, reason)
        try:
            exchange = await self._sending.get_exchange(self._dead, ensure=False)
            await exchange.publish(dead, message.routing_key or "", timeout=_ANSWER_S)
        except DeliveryError:  # the studio's exchange has no queue for it
            async with self._spare() as channel:
                await self._make_dead_queue(channel)
            await self._sending.default_exchange.publish(dead, self._dead_queue, timeout=_ANSWER_S)
        await message.ack()

    async def release(self, delivery: Delivery) -> None:
        """Put the message back where it was."""
        await _message(delivery).nack(requeue=True)

    async def extend(self, delivery: Delivery) -> None:
        """Nothing: the connection's heartbeat does it."""

    async def progress(self, reply: Mapping[str, JsonValue], delivery: Delivery | None, told: EventRecord) -> None:
        """A message of type ``progress`` to the reply queue, if the producer asked for them.

        A client of the RPC pattern takes the first message with its correlation id for the result.
        """
        if reply.get("progress"):
            await self._answer(reply, "progress", progress_of(told))

    async def result(self, reply: Mapping[str, JsonValue], delivery: Delivery | None, record: JobRecord) -> None:
        """A message of type ``result`` to the reply queue."""
        await self._answer(reply, "result", answer_of(record))

    async def _answer(self, reply: Mapping[str, JsonValue], kind: str, body: Mapping[str, JsonValue]) -> None:
        message = aio_pika.Message(
            json.dumps(body).encode(),
            content_type="application/json",
            correlation_id=str(reply["correlation_id"]),
            message_id=f"{body['job_id']}:{kind}:{body.get('seq', '')}".rstrip(":"),
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            type=kind,
        )
        await self._sending.default_exchange.publish(message, str(reply["to"]), timeout=_ANSWER_S)

    async def waiting(self) -> int | None:
        """Messages that the broker has not delivered."""
        async with self._spare() as channel:
            queue = await channel.declare_queue(self._name, passive=True)
            return queue.declaration_result.message_count


def lane_of(priority: int | None) -> Lane | None:
    """The lane that a message's priority asks for: 1 to 3 low, 4 to 6 medium, 7 and 8 high, 9 and more critical.

    None or 0 is what a message has that nobody gave a priority: the job type's own lane.
    """
    return next((lane for least, lane in _LANES if (priority or 0) >= least), None)


def identity_of(message: AbstractMessage) -> str:
    """What two deliveries of one message share and two messages do not.

    Its message id; else a digest of body, correlation id and time if it has one of the latter two. Of a message that
    has none of them, nobody can tell a second delivery from a second message: each delivery counts.
    """
    if message.message_id:
        return message.message_id
    if not message.correlation_id and not message.timestamp:
        return uuid4().hex
    marks = json.dumps([message.correlation_id, str(message.timestamp), message.reply_to]).encode()
    return hashlib.sha256(marks + b"\n" + message.body).hexdigest()


def _delivery(message: AbstractIncomingMessage) -> Delivery:
    own = identity_of(message)
    reply: dict[str, JsonValue] | None = None
    if message.reply_to:
        wants = bool(message.headers.get(WANTS_PROGRESS))
        reply = {"to": message.reply_to, "correlation_id": message.correlation_id or own, "progress": wants}
    count = message.headers.get("x-delivery-count")  # quorum queues tell
    before = count if isinstance(count, int) else int(bool(message.redelivered))
    return Delivery(
        id=own,
        body=message.body,
        attempt=1 + max(0, before),
        reply=reply,
        lane=lane_of(message.priority),
        handle=message,
    )


def _message(delivery: Delivery) -> AbstractIncomingMessage:
    message: AbstractIncomingMessage = delivery.handle
    return message


def _dead_letter(message: AbstractIncomingMessage, queue: str, reason: str) -> aio_pika.Message:
    headers: dict[str, Any] = {**message.headers, REASON: foreign_text(reason), "x-reelmesh-queue": queue}
    return aio_pika.Message(
        message.body,
        headers=headers,
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        priority=message.priority,
        correlation_id=message.correlation_id,
        reply_to=message.reply_to if not str(message.reply_to).startswith("amq.rabbitmq.reply-to") else None,
        message_id=message.message_id,
        timestamp=message.timestamp,
        type=message.type,
        app_id=message.app_id,
    )
