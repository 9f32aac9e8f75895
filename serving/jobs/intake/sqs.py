"""Sqs: jobs from an Amazon SQS queue, standard or FIFO, results to another queue; an intake's source.

The one invariant: a message is deleted only once its job is durable or its copy lies in the dead-letter queue.
"""

import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from pydantic import JsonValue

from serving.errors import BadInput, foreign_text
from serving.jobs.intake.base import Delivery, answer_of
from serving.jobs.records import EventRecord, JobRecord
from serving.settings import IntakeSettings

VISIBLE_AFTER_S: Final = 60
"""A message that this process holds without a word for so long is delivered again: the process died."""
LONG_POLL_S: Final = 20
"""What SQS allows at most: an empty queue costs three requests a minute."""
AT_ONCE: Final = 10
"""What SQS allows at most."""
MAX_ANSWER_BYTES: Final = 200_000
"""SQS takes 256 KiB with attributes; the output of a larger answer is left to GET /v1/jobs/{id}."""
MAX_ATTRIBUTES: Final = 10
REASON: Final = "ReelmeshReason"
FIFO: Final = ".fifo"


class Sqs:
    """A queue that is there; its dead-letter queue is made at the first message for it, if it is not.

    Args:
        settings: of the intake. ``url`` is the endpoint, as ``https://sqs.eu-west-1.amazonaws.com``; where the host
            does not tell the region, ``?region=`` does. ``dead_letter`` and ``results_url`` name queues or are their
            addresses.
        visible_after_s: see :data:`VISIBLE_AFTER_S`.
        long_poll_s: see :data:`LONG_POLL_S`.

    Raises:
        BadInput: the address is no http(s) address.
    """

    holds = False

    def __init__(
        self, settings: IntakeSettings, *, visible_after_s: int = VISIBLE_AFTER_S, long_poll_s: int = LONG_POLL_S
    ) -> None:
        self._endpoint, self._region = endpoint_of(settings.url)
        self._name = settings.queue
        self._fifo = settings.queue.endswith(FIFO)
        self._dead = settings.dead_letter
        self._results = settings.results_url
        self._visible_after_s = visible_after_s
        self._long_poll_s = long_poll_s
        self.extend_s: float | None = visible_after_s / 3
        # A FIFO queue's messages are taken one by one, since those of one group become jobs in their order.
        self._at_once = 1 if self._fifo else min(AT_ONCE, settings.prefetch)
        self._stack: AsyncExitStack | None = None
        self._client: Any = None
        self._queue = ""
        self._addresses: dict[str, str] = {}
        self._ahead: list[dict[str, Any]] = []

    async def open(self) -> None:
        """Find the queue; credentials come from where AWS' clients look for them."""
        config = AioConfig(connect_timeout=10, read_timeout=self._long_poll_s + 10, retries={"total_max_attempts": 2})
        self._stack = AsyncExitStack()
        client = get_session().create_client(
            "sqs", endpoint_url=self._endpoint, region_name=self._region, config=config
        )
        self._client = await self._stack.enter_async_context(client)
        self._addresses.clear()
        self._queue = await self._address(self._name)

    async def close(self) -> None:
        """Disconnect; what was received ahead is given back."""
        stack, self._stack = self._stack, None
        ahead, self._ahead = self._ahead, []
        if stack is not None:
            async with stack:
                for message in ahead:
                    await self._visible_in(message["ReceiptHandle"], 0)

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """Messages as they come, waited for by long polls."""
        while True:
            asked = time.monotonic()
            answer = await self._client.receive_message(
                QueueUrl=self._queue,
                MaxNumberOfMessages=self._at_once,
                WaitTimeSeconds=self._long_poll_s,
                VisibilityTimeout=self._visible_after_s,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["All"],
            )
            self._ahead = answer.get("Messages", [])
            while self._ahead:
                message = self._ahead.pop(0)
                # One that waited long for room in the mesh may be another process's by now.
                if time.monotonic() - asked < self._long_poll_s + self._visible_after_s / 2:
                    yield _delivery(message, bool(self._results))

    async def ack(self, delivery: Delivery) -> None:
        """Delete the message."""
        await self._client.delete_message(QueueUrl=self._queue, ReceiptHandle=delivery.handle["ReceiptHandle"])

    async def reject(self, delivery: Delivery, reason: str) -> None:
        """Copy the message into the dead-letter queue, with the reason as an attribute, then delete it.

        It is not left to ``maxReceiveCount``: what is malformed now is malformed at every delivery, and SQS would not
        say why.
        """
        message: dict[str, Any] = delivery.handle
        kept = list(message.get("MessageAttributes", {}).items())[: MAX_ATTRIBUTES - 1]
        reason_ = {"DataType": "String", "StringValue": foreign_text(reason)}
        target = await self._dead_letter()
        await self._client.send_message(
            QueueUrl=target,
            MessageBody=message["Body"],
            MessageAttributes={**dict(kept), REASON: reason_},
            **_order(target, _group(message), delivery.id),
        )
        await self.ack(delivery)

    async def release(self, delivery: Delivery) -> None:
        """Have the message delivered to somebody else at once."""
        await self._visible_in(delivery.handle["ReceiptHandle"], 0)

    async def extend(self, delivery: Delivery) -> None:
        """Hide the message for as long again."""
        await self._visible_in(delivery.handle["ReceiptHandle"], self._visible_after_s)

    async def _visible_in(self, receipt: str, seconds: int) -> None:
        await self._client.change_message_visibility(
            QueueUrl=self._queue, ReceiptHandle=receipt, VisibilityTimeout=seconds
        )

    async def progress(self, reply: Mapping[str, JsonValue], delivery: Delivery | None, told: EventRecord) -> None:
        """Nothing: a queue of results holds results."""

    async def result(self, reply: Mapping[str, JsonValue], delivery: Delivery | None, record: JobRecord) -> None:
        """A message to the queue of results; once only, if that is a FIFO queue."""
        if not self._results:
            return
        target = await self._address(self._results)
        body = answer_body({"message_id": reply["id"], **answer_of(record)})
        order = _order(target, str(reply.get("group") or record.id), f"{record.id}-result")
        await self._client.send_message(QueueUrl=target, MessageBody=body, **order)

    async def waiting(self) -> int | None:
        """About how many messages nobody has received."""
        name = "ApproximateNumberOfMessages"
        answer = await self._client.get_queue_attributes(QueueUrl=self._queue, AttributeNames=[name])
        return int(answer["Attributes"][name])

    async def _dead_letter(self) -> str:
        """The queue of the settings, of the redrive policy, or one beside the queue, which is made if need be."""
        if self._dead:
            return await self._address(self._dead)
        answer = await self._client.get_queue_attributes(QueueUrl=self._queue, AttributeNames=["RedrivePolicy"])
        if policy := answer.get("Attributes", {}).get("RedrivePolicy"):
            *_, account, name = json.loads(policy)["deadLetterTargetArn"].split(":")
            return await self._address(name, account)
        name = f"{self._name.removesuffix(FIFO)}-dead{FIFO if self._fifo else ''}"
        try:
            return await self._address(name)
        except self._client.exceptions.QueueDoesNotExist:
            pass
        attributes = {"MessageRetentionPeriod": str(14 * 24 * 3600), **({"FifoQueue": "true"} if self._fifo else {})}
        made = await self._client.create_queue(QueueName=name, Attributes=attributes)
        return str(made["QueueUrl"])

    async def _address(self, name: str, account: str = "") -> str:
        if "://" in name:
            return name
        if name not in self._addresses:
            owner = {"QueueOwnerAWSAccountId": account} if account else {}
            self._addresses[name] = (await self._client.get_queue_url(QueueName=name, **owner))["QueueUrl"]
        return self._addresses[name]


def endpoint_of(url: str) -> tuple[str, str | None]:
    """The endpoint and the region that an intake's address names; None leaves the region to AWS' own settings.

    Raises:
        BadInput: it is no http(s) address.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise BadInput(
            "an intake of kind sqs needs the endpoint's http(s) address",
            field="intakes.url",
            fix="for example https://sqs.eu-west-1.amazonaws.com",
        )
    named = parse_qs(parts.query).get("region")
    told = re.fullmatch(r"sqs(?:-fips)?\.([a-z0-9-]+)\.(?:amazonaws\.com(?:\.cn)?|api\.aws)", parts.hostname)
    region = named[0] if named else told[1] if told else None
    return f"{parts.scheme}://{parts.netloc}{parts.path}", region


def answer_body(answer: Mapping[str, JsonValue]) -> str:
    """The answer as SQS takes it: without the output where that is too large."""
    body = json.dumps(answer)
    return body if len(body) <= MAX_ANSWER_BYTES else json.dumps({**answer, "output": None, "files": {}})


def _delivery(message: dict[str, Any], answered: bool) -> Delivery:
    own = str(message["MessageId"])
    count = str(message.get("Attributes", {}).get("ApproximateReceiveCount", "1"))
    return Delivery(
        id=own,
        body=message["Body"].encode(errors="replace"),
        attempt=int(count) if count.isdecimal() else 1,
        reply={"id": own, "group": _group(message)} if answered else None,
        handle=message,
    )


def _group(message: Mapping[str, Any]) -> str:
    return str(message.get("Attributes", {}).get("MessageGroupId", ""))


def _order(target: str, group: str, once: str) -> dict[str, str]:
    """What a FIFO queue wants to know of a message: whom it follows, and what makes two sends one."""
    if not target.endswith(FIFO):
        return {}
    return {"MessageGroupId": group or "reelmesh", "MessageDeduplicationId": once}
