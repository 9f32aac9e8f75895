"""IntakeGroup: every intake of the settings, started and stopped together; opened by the gateway's jobs part.

The one invariant: a kind of broker whose client library is not installed stops the start, with the command that
installs it; a broker that is away does not.
"""

import asyncio
import importlib
from collections.abc import Sequence
from typing import Final, Literal

from serving.errors import BadInput, MissingDependency
from serving.jobs.database import Database
from serving.jobs.intake.base import Source, source_of
from serving.jobs.intake.replies import HeldReplies, StoredReplies
from serving.jobs.intake.runner import Desk, Intake
from serving.jobs.store import JobStore
from serving.settings import IntakeSettings

Kind = Literal["redis", "bullmq", "celery", "rabbitmq", "sqs"]

SOURCES: Final[dict[Kind, tuple[str, str]]] = {
    "redis": ("serving.jobs.intake.redis_stream", "RedisStream"),
    "bullmq": ("serving.jobs.intake.bullmq_queue", "BullMqQueue"),
    "celery": ("serving.jobs.intake.celery_queue", "CeleryQueue"),
    "rabbitmq": ("serving.jobs.intake.rabbitmq", "RabbitMq"),
    "sqs": ("serving.jobs.intake.sqs", "Sqs"),
}
"""Module and class by kind; imported when a setting asks for the kind, since each brings its client library."""
INSTALL: Final = (
    "pip install 'reelmesh[intakes]'",
    "pip install 'reelmesh[intakes]', then pip install --no-deps 'bullmq>=3.4.4,<4'",
)
"""How a client library is installed, and BullMQ's, which pins dependencies that the mesh cannot use."""


def make_source(settings: IntakeSettings) -> Source:
    """The source that an intake's settings ask for.

    Raises:
        MissingDependency: its client library is not installed.
        BadInput: the settings do not fit the kind.
    """
    module, name = SOURCES[settings.kind]
    try:
        made: Source = getattr(importlib.import_module(module), name)(settings)
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"an intake of kind {settings.kind} needs {error.name}",
            field="intakes",
            fix=INSTALL[settings.kind == "bullmq"],
        ) from error
    return made


class IntakeGroup:
    """All intakes of one gateway.

    Args:
        intakes: their settings.
        desk: takes jobs in.
        store: tells of them.
        database: of the jobs.
        most_bytes: largest message.

    Raises:
        BadInput: two intakes have one name.
        MissingDependency: a client library is not installed.
    """

    def __init__(
        self, intakes: Sequence[IntakeSettings], desk: Desk, store: JobStore, database: Database, *, most_bytes: int
    ) -> None:
        names = [settings.name for settings in intakes]
        if len(set(names)) < len(names):
            raise BadInput("two intakes have the same kind and queue", field="intakes", fix="leave one out")
        self._intakes = [_intake(settings, desk, store, database, most_bytes) for settings in intakes]

    def start(self) -> None:
        """Begin with all."""
        for intake in self._intakes:
            intake.start()

    async def stop(self) -> None:
        """End all; what is no job yet goes back to its queue."""
        await asyncio.gather(*(intake.stop() for intake in self._intakes))

    def check(self) -> None:
        """Raise once one of them has ended by itself."""
        for intake in self._intakes:
            intake.check()


def _intake(settings: IntakeSettings, desk: Desk, store: JobStore, database: Database, most_bytes: int) -> Intake:
    source = make_source(settings)
    replies = HeldReplies(store) if source.holds else StoredReplies(database, source_of(settings.name))
    return Intake(
        source,
        desk,
        store,
        replies,
        name=settings.name,
        tenant=settings.tenant,
        prefetch=settings.prefetch,
        most_bytes=most_bytes,
    )
