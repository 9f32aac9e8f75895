"""CeleryQueue: jobs from a Celery queue on RabbitMQ or Redis, results to its clients' backend; an intake's source.

The one invariant: the task id is the message's id, and a message is off its queue only once its job is durable, or it
is a dead letter, or its client was told why it became none.
"""

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from typing import Final, Protocol

import structlog
from pydantic import JsonValue

from serving.errors import BadInput, foreign_text
from serving.jobs.intake.base import Delivery, answer_of, failure_of, progress_of
from serving.jobs.intake.celery_amqp import CeleryAmqp
from serving.jobs.intake.celery_message import Envelope, task_of
from serving.jobs.intake.celery_redis import CeleryRedis
from serving.jobs.intake.celery_results import AMQP_SCHEMES, CeleryResults
from serving.jobs.records import EventRecord, JobRecord
from serving.jobs.types import JobState
from serving.settings import IntakeSettings

log = structlog.get_logger()

EXPIRED: Final = "expired"
"""What a client hears of a task that came too late, in a Celery worker's own word."""
_REDIS_SCHEMES: Final = ("redis", "rediss")


class Broker(Protocol):
    """Where messages lie; methods as in :class:`serving.jobs.intake.base.Source`, but for those described here."""

    extend_s: float | None

    async def open(self) -> None:
        """As in the source."""

    async def close(self) -> None:
        """As in the source."""

    def envelopes(self) -> AsyncGenerator[Envelope, None]:
        """Messages as they come, for ever; what was postponed comes again."""

    async def ack(self, delivery: Delivery) -> None:
        """As in the source."""

    async def reject(self, delivery: Delivery, reason: str) -> None:
        """As in the source."""

    async def release(self, delivery: Delivery) -> None:
        """As in the source."""

    async def extend(self, delivery: Delivery) -> None:
        """As in the source."""

    async def postpone(self, delivery: Delivery, until: float) -> None:
        """Keep the message, not acknowledged, until a time in Unix seconds; the prefetch is not touched by it."""

    async def waiting(self) -> int | None:
        """As in the source."""


class CeleryQueue:
    """A queue that Celery clients send tasks to by name.

    Args:
        settings: of the intake. ``results_url`` is the clients' result backend; without it, it is that of RabbitMQ
            (``rpc://``), or the broker's Redis.

    Raises:
        BadInput: the addresses are none that an intake of Celery can use.
    """

    holds = False

    def __init__(self, settings: IntakeSettings) -> None:
        scheme = settings.url.partition("://")[0]
        if scheme not in {*AMQP_SCHEMES, *_REDIS_SCHEMES}:
            raise BadInput(
                "an intake of kind celery needs a broker that is RabbitMQ or Redis",
                field="intakes.url",
                fix="for example amqp://rabbit.studio.example// or redis://redis.studio.example/0",
            )
        self._broker: Broker = CeleryAmqp(settings) if scheme in AMQP_SCHEMES else CeleryRedis(settings)
        results = settings.results_url or ("rpc://" if scheme in AMQP_SCHEMES else settings.url)
        self._results = CeleryResults(settings.url, results)
        self.extend_s = self._broker.extend_s

    async def open(self) -> None:
        """Connect; a queue that is missing is made as a Celery client makes it."""
        await self._broker.open()
        await self._results.open()

    async def close(self) -> None:
        """Disconnect, and end the thread that results are told in."""
        try:
            await self._results.close()
        finally:
            await self._broker.close()

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """Tasks that are due; those that came too late never become jobs."""
        async with contextlib.aclosing(self._broker.envelopes()) as envelopes:
            async for envelope in envelopes:
                task, now = task_of(envelope), time.time()
                delivery = Delivery(
                    id=task.id,
                    body=task.body,
                    attempt=envelope.attempt,
                    reply=task.reply,
                    lane=envelope.lane,
                    handle=envelope.handle,
                    problem=task.problem,
                )
                if task.expires is not None and task.expires <= now:
                    await self._revoke(delivery)
                elif task.eta is not None and task.eta > now:
                    await self._broker.postpone(delivery, task.eta)
                else:
                    yield delivery

    async def _revoke(self, delivery: Delivery) -> None:
        log.info("celery_task_expired", task=delivery.id[:80])
        if delivery.reply is not None:
            with _though_not_told(delivery):
                await self._results.revoked(delivery.reply, EXPIRED)
        await self._broker.ack(delivery)

    async def ack(self, delivery: Delivery) -> None:
        """Take the message off the queue."""
        await self._broker.ack(delivery)

    async def reject(self, delivery: Delivery, reason: str) -> None:
        """Tell the client ``FAILURE`` with the reason, and move the message to the dead letter."""
        if delivery.reply is not None:
            with _though_not_told(delivery):
                await self._results.failed(delivery.reply, ValueError(reason))
        await self._broker.reject(delivery, reason)

    async def release(self, delivery: Delivery) -> None:
        """Put the message back."""
        await self._broker.release(delivery)

    async def extend(self, delivery: Delivery) -> None:
        """Keep the broker from delivering the message again meanwhile."""
        await self._broker.extend(delivery)

    async def progress(self, reply: Mapping[str, JsonValue], delivery: Delivery | None, told: EventRecord) -> None:
        """The state ``PROGRESS``, whose ``info`` is what the mesh tells of a working job."""
        await self._results.progress(reply, progress_of(told))

    async def result(self, reply: Mapping[str, JsonValue], delivery: Delivery | None, record: JobRecord) -> None:
        """``SUCCESS`` with the answer, ``REVOKED`` if it was cancelled, or ``FAILURE`` with the job's error."""
        if record.state is JobState.COMPLETED:
            await self._results.done(reply, answer_of(record))
        elif record.state is JobState.CANCELLED:
            await self._results.revoked(reply, failure_of(record))
        else:
            await self._results.failed(reply, RuntimeError(failure_of(record)))

    async def waiting(self) -> int | None:
        """Messages that nobody has taken."""
        return await self._broker.waiting()


@contextlib.contextmanager
def _though_not_told(delivery: Delivery) -> Iterator[None]:
    """A result backend that is away must not keep the queue from going on."""
    try:
        yield
    except Exception as error:
        log.warning("celery_client_not_told", task=delivery.id[:80], error=foreign_text(error))
