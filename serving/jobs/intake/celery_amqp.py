"""CeleryAmqp: the messages of a Celery queue on RabbitMQ; what the Celery intake takes from there.

The one invariant: messages that wait for their time are held apart from those at work, so that they neither take up the
prefetch nor are more than :data:`MAX_HELD`.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Final

from aio_pika import ExchangeType
from aio_pika.abc import AbstractIncomingMessage

from serving.jobs.intake.base import Delivery
from serving.jobs.intake.celery_message import Envelope
from serving.jobs.intake.rabbitmq import RabbitMq, lane_of
from serving.settings import IntakeSettings

MAX_HELD: Final = 1000
"""Messages held for their time; while there are more of them, the broker keeps what is behind them."""
HOLD_S: Final = 600.0
"""How long one is held at a time: RabbitMQ ends the channel of a consumer that keeps a message for half an hour."""

_ANSWER_S: Final = 10.0

_Arrival = tuple[AbstractIncomingMessage, bool] | None
"""A message, and whether it goes back into the queue before its time; None for the end of the channel."""


class CeleryAmqp(RabbitMq):
    """A queue as a Celery client makes it, or as it is there; its dead letter is that of :class:`RabbitMq`.

    Args:
        settings: of the intake.
        hold_s: see :data:`HOLD_S`.
    """

    def __init__(self, settings: IntakeSettings, *, hold_s: float = HOLD_S) -> None:
        # Celery's name for the scheme, where its client library is written in Python.
        url = settings.url.removeprefix("py") if settings.url.startswith("pyamqp://") else settings.url
        super().__init__(settings.model_copy(update={"url": url}))
        self._hold_s = hold_s
        self._inbox: asyncio.Queue[_Arrival] = asyncio.Queue()
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._counted = 0

    async def _make_queue(self) -> None:
        # As ``send_task(queue=...)`` declares it: what differs would make the client's own declaration fail.
        if not await self._exists("queue", self._name):
            async with self._spare() as channel:
                exchange = await channel.declare_exchange(self._name, ExchangeType.DIRECT, durable=True)
                queue = await channel.declare_queue(self._name, durable=True)
                await queue.bind(exchange, self._name)

    async def close(self) -> None:
        """Disconnect; the broker puts what is not acknowledged back."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        await super().close()

    async def envelopes(self) -> AsyncGenerator[Envelope, None]:
        """Messages as they come, and again when their time has come."""
        channel, inbox = self._taking, asyncio.Queue[_Arrival]()

        async def came(message: AbstractIncomingMessage) -> None:
            inbox.put_nowait((message, False))

        def ended(*_: object) -> None:
            inbox.put_nowait(None)

        channel.close_callbacks.add(ended)
        self._inbox, self._counted = inbox, 0
        queue = await channel.get_queue(self._name)
        consumer = await queue.consume(came)
        while (arrival := await inbox.get()) is not None:
            message, early = arrival
            if early:
                await self._renew(message)
                continue
            yield _envelope(message)
            if 2 * self._counted >= self._prefetch and len(self._timers) < MAX_HELD:
                # The broker counts what a consumer has not acknowledged: a new one has its prefetch to itself.
                await queue.cancel(consumer)
                consumer, self._counted = await queue.consume(came), 0
        raise ConnectionError("the broker closed the channel")

    async def _renew(self, message: AbstractIncomingMessage) -> None:
        # Given back, it would come nearer to its quorum queue's bound on deliveries each time, and be lost in the end.
        # Should both be there for a moment, they have one task id.
        await self._sending.default_exchange.publish(message, self._name, timeout=_ANSWER_S)
        await message.ack()

    async def postpone(self, delivery: Delivery, until: float) -> None:
        """Hold the message until then; what is held for long is put into the queue anew meanwhile."""
        message: AbstractIncomingMessage = delivery.handle
        wait_s = max(0.0, until - time.time())
        wake = asyncio.get_running_loop().call_later
        tag, early = message.delivery_tag or 0, wait_s > self._hold_s
        self._timers[tag] = wake(min(wait_s, self._hold_s), self._wake, tag, message, early)
        self._counted += 1

    def _wake(self, tag: int, message: AbstractIncomingMessage, early: bool) -> None:
        del self._timers[tag]
        self._inbox.put_nowait((message, early))


def _envelope(message: AbstractIncomingMessage) -> Envelope:
    count = message.headers.get("x-delivery-count")  # quorum queues tell
    before = count if isinstance(count, int) else int(bool(message.redelivered))
    return Envelope(
        headers=message.headers,
        body=message.body,
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        reply_to=message.reply_to or None,
        correlation_id=message.correlation_id or None,
        lane=lane_of(message.priority),
        attempt=1 + max(0, before),
        handle=message,
    )
