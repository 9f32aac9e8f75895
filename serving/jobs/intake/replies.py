"""What producers are still owed: answers to messages that became jobs; kept by the intake's runner.

The one invariant: for a source that acknowledges early, an answer is owed from before the message is acknowledged until
the broker has taken the job's result, and that is a row, so whichever process lives pays it.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, Protocol

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.dialects import postgresql, sqlite

from serving.jobs.database import Database
from serving.jobs.intake.base import Delivery
from serving.jobs.store import JobStore
from serving.jobs.tables import jobs, replies

CLAIM_S: Final = 30.0
"""How long one process has an answer to itself; after that another one may send it."""
MAX_TRIES: Final = 20
"""An answer that a broker refused this often is dropped."""
_MAX_HELD_TRIES: Final = 5
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 300.0
_AT_ONCE: Final = 64
_ASKED_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Owed:
    """An answer whose job has news.

    Args:
        told: number of the last event the producer knows of.
        tries: how often this news could not be told.
        delivery: the message, where its source holds it.
    """

    job_id: str
    address: Mapping[str, JsonValue]
    told: int
    tries: int = 0
    delivery: Delivery | None = None


class Replies(Protocol):
    """Where owed answers are kept."""

    async def owe(self, job_id: str, delivery: Delivery) -> None:
        """Remember that the message's producer waits for the job; again is no harm."""

    async def due(self) -> list[Owed]:
        """Some answers whose jobs have news, for this process alone until they are settled below."""

    async def told(self, owed: Owed, seq: int) -> None:
        """The producer knows of the events up to ``seq``."""

    async def paid(self, owed: Owed) -> None:
        """The producer has the result."""

    async def put_off(self, owed: Owed) -> bool:
        """The broker did not take it: try later; False means that it was dropped after too many tries."""


class StoredReplies:
    """Rows: for sources that acknowledge a message once its job is durable.

    Args:
        database: of the jobs.
        source: whose answers these are, as in the jobs table.
        claim_s: how long one process has an answer to itself.
    """

    def __init__(self, database: Database, source: str, *, claim_s: float = CLAIM_S) -> None:
        self._claim_s = claim_s
        self._database = database
        self._source = source

    async def owe(self, job_id: str, delivery: Delivery) -> None:
        """As in :class:`Replies`."""
        if delivery.reply is None:
            return
        row = {"job_id": job_id, "source": self._source, "address": delivery.reply, "told": 0, "next_at": 0, "tries": 0}
        await self._database.run(lambda connection: _insert(connection, row))

    async def due(self) -> list[Owed]:
        """As in :class:`Replies`."""
        now = time.time()
        news = (
            sa.select(replies.c.job_id, replies.c.address, replies.c.told, replies.c.tries, replies.c.next_at)
            .join(jobs, jobs.c.id == replies.c.job_id)
            .where(replies.c.source == self._source, replies.c.next_at <= now, jobs.c.last_event > replies.c.told)
            .order_by(replies.c.next_at)
            .limit(_AT_ONCE)
        )
        rows = await self._database.run(lambda connection: connection.execute(news).all())
        return (
            await self._database.run(lambda connection: _claim(connection, rows, now + self._claim_s)) if rows else []
        )

    async def told(self, owed: Owed, seq: int) -> None:
        """As in :class:`Replies`."""
        await self._change(owed, told=seq, next_at=0, tries=0)

    async def paid(self, owed: Owed) -> None:
        """As in :class:`Replies`."""
        gone = sa.delete(replies).where(replies.c.job_id == owed.job_id)
        await self._database.run(lambda connection: connection.execute(gone))

    async def put_off(self, owed: Owed) -> bool:
        """As in :class:`Replies`."""
        if owed.tries + 1 >= MAX_TRIES:
            await self.paid(owed)
            return False
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**owed.tries)
        await self._change(owed, tries=owed.tries + 1, next_at=time.time() + pause_s)
        return True

    async def _change(self, owed: Owed, **values: float) -> None:
        change = sa.update(replies).where(replies.c.job_id == owed.job_id).values(**values)
        await self._database.run(lambda connection: connection.execute(change))


def _insert(connection: sa.Connection, row: Mapping[str, object]) -> None:
    # One statement: a message that is delivered twice at once writes twice, and each would look before either wrote.
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    connection.execute(dialect.insert(replies).values(row).on_conflict_do_nothing())


def _claim(connection: sa.Connection, rows: Sequence[Any], until: float) -> list[Owed]:
    """Of the rows read before, those that nobody else has claimed meanwhile."""
    claimed = []
    for row in rows:
        same = (replies.c.job_id == row.job_id, replies.c.next_at == row.next_at, replies.c.told == row.told)
        if connection.execute(sa.update(replies).where(*same).values(next_at=until)).rowcount:
            claimed.append(Owed(row.job_id, row.address, row.told, row.tries))
    return claimed


class HeldReplies:
    """Memory: for sources that hold a message until its job's end, since a lost process means another delivery.

    Args:
        store: tells which jobs have news.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._held: dict[str, Owed] = {}

    async def owe(self, job_id: str, delivery: Delivery) -> None:
        """As in :class:`Replies`; a later delivery of the same message takes the place of the earlier one."""
        self._held[job_id] = Owed(job_id, delivery.reply or {}, 0, delivery=delivery)

    async def due(self) -> list[Owed]:
        """As in :class:`Replies`."""
        asked, last = iter(list(self._held)), dict[str, int]()
        while chunk := list(islice(asked, _ASKED_AT_ONCE)):
            last |= await self._store.last_events(chunk)
        # A job that is no longer there has expired; asking for it tells its producer so.
        return [owed for owed in list(self._held.values()) if last.get(owed.job_id, owed.told + 1) > owed.told]

    async def told(self, owed: Owed, seq: int) -> None:
        """As in :class:`Replies`."""
        if self._held.get(owed.job_id) is owed:
            self._held[owed.job_id] = replace(owed, told=seq, tries=0)

    async def paid(self, owed: Owed) -> None:
        """As in :class:`Replies`."""
        if self._held.get(owed.job_id) is owed:
            del self._held[owed.job_id]

    async def put_off(self, owed: Owed) -> bool:
        """As in :class:`Replies`; what is dropped comes again, once its broker takes this process for lost."""
        if owed.tries + 1 >= _MAX_HELD_TRIES:
            await self.paid(owed)
            return False
        if self._held.get(owed.job_id) is owed:
            self._held[owed.job_id] = replace(owed, tries=owed.tries + 1)
        return True

    def clear(self) -> list[Delivery]:
        """Forget all; what was held."""
        held = [owed.delivery for owed in self._held.values() if owed.delivery is not None]
        self._held.clear()
        return held
