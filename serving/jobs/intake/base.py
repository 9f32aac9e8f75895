"""Source: what a broker must be able to do to hand jobs in; one class a kind of broker, driven by the intake's runner.

The one invariant: a source moves messages; what becomes of them (job, dead letter, another try) the runner decides.
"""

import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from pydantic import JsonValue, ValidationError

from serving.errors import BadInput, TooLarge
from serving.jobs.input_problems import bad_input
from serving.jobs.records import EventRecord, JobRecord
from serving.jobs.submit import JobRequest
from serving.jobs.types import Lane
from serving.protocol.oip_json import parse_object

MAX_MESSAGE_ID_CHARS: Final = 255
MAX_SOURCE_CHARS: Final = 64


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message, delivered for the first time or again.

    Args:
        id: names the message; the same at every delivery of it, since it is what makes two deliveries one job.
        body: UTF-8 JSON of ``POST /v1/jobs``: ``type``, ``input`` and what else belongs there.
        attempt: 1 for the first delivery, as far as the broker tells.
        reply: JSON that tells the source where answers go, kept with the job; None wants no answer.
        lane: what the broker's own priority asks for; the body's ``lane`` goes before it.
        handle: what the source needs to acknowledge it; nobody else looks at it.
        problem: why it is no job, where the source itself could not read it.
    """

    id: str
    body: bytes
    attempt: int = 1
    reply: dict[str, JsonValue] | None = None
    lane: Lane | None = None
    handle: Any = field(default=None, compare=False)
    problem: BadInput | None = None


class Source(Protocol):
    """A queue at a broker. Any exception but those a method names means that the broker is away.

    After an exception the runner calls :meth:`close`, waits and calls :meth:`open` anew; answers that were not sent are
    sent later, perhaps by another process, so :meth:`progress` and :meth:`result` of a source that holds nothing need
    no more than what is in ``reply``.

    Attributes:
        holds: False: a message is acknowledged once its job is durable, and answers go where ``reply`` says. True: it
            stays with the broker until the job's end, ``ack`` only notes that it became a job, and answers are given
            to the delivery, in this process; a message whose process died is delivered again.
        extend_s: how often :meth:`extend` is called for a message that is not acknowledged (or held); None: never.
    """

    holds: bool
    extend_s: float | None

    async def open(self) -> None:
        """Connect, and make the groups and queues that are missing."""

    async def close(self) -> None:
        """Disconnect; messages not acknowledged go back to the queue. Safe to call twice, and when not opened."""

    def deliveries(self) -> AsyncIterator[Delivery]:
        """Messages as they come, for ever; the runner holds at most ``prefetch`` at a time before it asks for more."""

    async def ack(self, delivery: Delivery) -> None:
        """The message is a job now."""

    async def reject(self, delivery: Delivery, reason: str) -> None:
        """Move the message to the queue's own dead letter, with the reason; nobody will deliver it again."""

    async def release(self, delivery: Delivery) -> None:
        """Give the message back untouched, for another consumer; called on a clean stop."""

    async def extend(self, delivery: Delivery) -> None:
        """Keep the broker from delivering the message again meanwhile."""

    async def progress(self, reply: Mapping[str, JsonValue], delivery: Delivery | None, told: EventRecord) -> None:
        """Tell of a working job; ``delivery`` is given where the source holds. Do nothing where nobody listens."""

    async def result(self, reply: Mapping[str, JsonValue], delivery: Delivery | None, record: JobRecord) -> None:
        """Tell how the job ended; where the source holds, this ends the message too."""

    async def waiting(self) -> int | None:
        """How many messages wait at the broker; None where it does not tell."""


def request_of(delivery: Delivery, most_bytes: int) -> JobRequest:
    """The job that a message asks for.

    Raises:
        TooLarge: the message is larger than ``most_bytes``.
        BadInput: names the wrong field.
    """
    if delivery.problem is not None:
        raise delivery.problem
    if len(delivery.body) > most_bytes:
        raise TooLarge(f"the message has {len(delivery.body)} bytes, more than {most_bytes}", field="body")
    try:
        request = JobRequest.model_validate(parse_object(delivery.body, "body"))
    except ValidationError as error:
        raise bad_input(error, JobRequest) from error
    return request if request.lane is not None else request.model_copy(update={"lane": delivery.lane})


def message_id_of(delivery: Delivery) -> str:
    """The message's id as the jobs table keeps it: itself, or its digest where it is long."""
    if 0 < len(delivery.id) <= MAX_MESSAGE_ID_CHARS:
        return delivery.id
    return hashlib.sha256(delivery.id.encode()).hexdigest()


def source_of(name: str) -> str:
    """An intake's name as the jobs table keeps it."""
    if len(name) <= MAX_SOURCE_CHARS:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{name[: MAX_SOURCE_CHARS - 17]}-{digest}"


def progress_of(event: EventRecord) -> dict[str, JsonValue]:
    """What a producer hears of a working job; ``progress`` runs from 0 to 1."""
    return {
        "job_id": event.job_id,
        "state": event.state.value,
        "stage": event.stage,
        "progress": round(event.progress, 4),
        "seq": event.seq,
    }


def answer_of(record: JobRecord) -> dict[str, JsonValue]:
    """What a producer hears of a job that has ended: its output or error; ``files`` are paths of the mesh's API."""
    output, error = record.output, record.error
    files = {} if output is None else {name: f"/v1/jobs/{record.id}/artifacts/{name}" for name in output.files}
    return {
        "job_id": record.id,
        "type": record.type,
        "state": record.state.value,
        "files": dict(files),
        "output": None if output is None else output.model_dump(mode="json"),
        "error": None if error is None else error.model_dump(mode="json"),
    }


def failure_of(record: JobRecord) -> str:
    """Why a job ended without a result, in one line."""
    return str(record.error) if record.error is not None else f"the job was {record.state}"
