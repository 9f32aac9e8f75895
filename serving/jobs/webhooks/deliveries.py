"""Deliveries: the rows of what is to be sent to webhooks; used by the sender and by the routes that show them.

The one invariant: of all the gateways that share a database, one holds a delivery at a time, and only while its claim
lasts: what a gateway claimed before it died is claimed again, and a late outcome of it changes nothing.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field

from serving.errors import Conflict, NotFound
from serving.jobs.database import Database, lock
from serving.jobs.tables import deliveries, job_events, jobs
from serving.jobs.webhooks.policy import DeliveryState, Verdict, message

MAX_LISTED: Final = 200
MAX_CLAIMED: Final = 1000
"""More than anybody sends at a time."""
_LOCK_KEY: Final = 7_385_004
"""PostgreSQL advisory lock held while deliveries are claimed."""
_COLUMNS: Final = [column for column in deliveries.c if column is not deliveries.c.claimed_until]


class DeliveryRecord(BaseModel):
    """One delivery, as people see it."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="The header webhook-id, the same at every try.")
    job_id: str
    seq: int = Field(description="Number of the job's event.")
    event: str
    state: DeliveryState
    tries: int
    next_at: float = Field(description="When it is tried next while it waits; Unix seconds.")
    last_problem: str | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """One delivery that this gateway may send until ``until``."""

    id: str
    job_id: str
    tries: int
    until: float
    event_at: float
    url: str
    host: str
    tenant: str
    body: str


class Deliveries:
    """Reads and changes the rows.

    Args:
        database: opened, with its tables made.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(
        self, *, lease_s: float, limit: int, busy: Mapping[str, int] = MappingProxyType({}), per_host: int = MAX_CLAIMED
    ) -> list[Claimed]:
        """Take deliveries that are due, the longest due first, and count the try.

        Args:
            lease_s: how long they are taken for.
            limit: most of them.
            busy: how many are being sent to each host.
            per_host: most that may be sent to one host, those included; what is due beyond that stays as it is.
        """
        full = [host for host, sending in busy.items() if sending >= per_host]
        if not await self._database.run(partial(_is_any_due, full=full)):
            return []

        def work(connection: sa.Connection) -> list[Claimed]:
            lock(connection, _LOCK_KEY)
            room = {host: per_host - sending for host, sending in busy.items()}
            return _claim(connection, _fitting(connection, full, limit, room, per_host), lease_s)

        return await self._database.run(work)

    async def settle(self, claimed: Claimed, outcome: Verdict, problem: str | None) -> bool:
        """Write what became of a try; False if the claim was lost meanwhile."""
        return await self._database.persist(lambda connection: _settle(connection, claimed, outcome, problem))

    async def page(
        self,
        *,
        job_id: str | None = None,
        tenant: str | None = None,
        states: Collection[DeliveryState] = (),
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[list[DeliveryRecord], str | None]:
        """Deliveries, newest job first, and the cursor of the next page."""
        query = sa.select(*_COLUMNS).order_by(deliveries.c.id.desc()).limit(min(limit, MAX_LISTED) + 1)
        if job_id is not None:
            query = query.where(deliveries.c.job_id == job_id)
        if tenant is not None:
            query = query.join(jobs, jobs.c.id == deliveries.c.job_id).where(jobs.c.tenant == tenant)
        if states:
            query = query.where(deliveries.c.state.in_(list(states)))
        if cursor is not None:
            query = query.where(deliveries.c.id < cursor)
        rows = await self._database.run(lambda connection: connection.execute(query).all())
        shown = [DeliveryRecord.model_validate(row._asdict()) for row in rows[: min(limit, MAX_LISTED)]]
        return shown, shown[-1].id if len(rows) > len(shown) else None

    async def get(self, delivery_id: str) -> DeliveryRecord:
        """One delivery; raises :class:`NotFound`."""
        return await self._database.run(lambda connection: _read(connection, delivery_id))

    async def webhook_of(self, job_id: str) -> dict[str, Any] | None:
        """A job's webhook as its row holds it, which a fork of the job takes over."""
        query = sa.select(jobs.c.webhook).where(jobs.c.id == job_id)
        return await self._database.run(lambda connection: connection.scalar(query))

    async def resend(self, delivery_id: str) -> DeliveryRecord:
        """Have a delivery that ended sent again, with all its tries.

        Raises:
            NotFound: no such delivery.
            Conflict: it waits to be sent anyway.
        """
        return await self._database.run(lambda connection: _resend(connection, delivery_id))


def _due(now: float, full: Sequence[str]) -> tuple[sa.ColumnElement[bool], ...]:
    free = deliveries.c.claimed_until.is_(None) | (deliveries.c.claimed_until < now)
    waits = (deliveries.c.state == DeliveryState.WAITING, deliveries.c.next_at <= now, free)
    return (*waits, deliveries.c.host.not_in(full)) if full else waits


def _is_any_due(connection: sa.Connection, full: Sequence[str]) -> bool:
    # A look takes no write lock, which the other writers of a SQLite file would have to wait for.
    return connection.scalar(sa.select(deliveries.c.id).where(*_due(time.time(), full)).limit(1)) is not None


def _fitting(
    connection: sa.Connection, full: Sequence[str], limit: int, room: dict[str, int], per_host: int
) -> list[str]:
    """Ids of what is due, without what would be too much for its host; ``room`` is what is left there."""
    due = sa.select(deliveries.c.id, deliveries.c.host).where(*_due(time.time(), full))
    ids = []
    for row in connection.execute(due.order_by(deliveries.c.next_at).limit(limit)):
        if (left := room.get(row.host, per_host)) > 0:
            room[row.host] = left - 1
            ids.append(row.id)
    return ids


def _claim(connection: sa.Connection, due: Sequence[str], lease_s: float) -> list[Claimed]:
    until = time.time() + lease_s
    taken = (
        sa.update(deliveries)
        .where(deliveries.c.id.in_(due), deliveries.c.state == DeliveryState.WAITING)
        .values(claimed_until=until, tries=deliveries.c.tries + 1)
        .returning(deliveries.c.id)
    )
    ids = list(connection.scalars(taken))
    query = (
        sa.select(
            deliveries.c.id.label("delivery_id"), deliveries.c.event, deliveries.c.host, deliveries.c.tries, job_events,
            jobs.c.title, jobs.c.type.label("job_type"), jobs.c.created_at, jobs.c.parent_id, jobs.c.error,
            jobs.c.output, jobs.c.webhook, jobs.c.tenant,
        )
        .join(jobs, jobs.c.id == deliveries.c.job_id)
        .join(job_events, sa.and_(job_events.c.job_id == deliveries.c.job_id, job_events.c.seq == deliveries.c.seq))
        .where(deliveries.c.id.in_(ids))
        .order_by(deliveries.c.id)
    )  # fmt: skip
    return [_claimed(row, until) for row in connection.execute(query)]


def _claimed(row: sa.Row[Any], until: float) -> Claimed:
    return Claimed(
        id=row.delivery_id,
        job_id=row.job_id,
        tries=row.tries,
        until=until,
        event_at=row.at,
        url=str((row.webhook or {}).get("url", "")),
        host=row.host,
        tenant=row.tenant,
        body=message(row.event, row._asdict()),
    )


def _held(claimed: Claimed) -> tuple[sa.ColumnElement[bool], ...]:
    # The end of the claim tells it from a later one of the same delivery.
    return (
        deliveries.c.id == claimed.id,
        deliveries.c.state == DeliveryState.WAITING,
        deliveries.c.claimed_until == claimed.until,
    )


def _settle(connection: sa.Connection, claimed: Claimed, outcome: Verdict, problem: str | None) -> bool:
    values = {
        "state": outcome.state,
        "claimed_until": None,
        "next_at": time.time() + outcome.pause_s,
        "last_problem": problem,
    }
    if not connection.execute(sa.update(deliveries).where(*_held(claimed)).values(**values)).rowcount:
        return False
    if outcome.state is DeliveryState.GONE:
        _end_all(connection, claimed.job_id)
    return True


def _end_all(connection: sa.Connection, job_id: str) -> None:
    """The receiver wants no more of this job: neither what waits nor what comes."""
    webhook = connection.scalar(sa.select(jobs.c.webhook).where(jobs.c.id == job_id).with_for_update()) or {}
    connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(webhook={**webhook, "gone": True}))
    waiting = (deliveries.c.job_id == job_id, deliveries.c.state == DeliveryState.WAITING)
    connection.execute(sa.update(deliveries).where(*waiting).values(state=DeliveryState.GONE))


def _resend(connection: sa.Connection, delivery_id: str) -> DeliveryRecord:
    here = deliveries.c.id == delivery_id
    again = {"state": DeliveryState.WAITING, "tries": 0, "next_at": time.time(), "claimed_until": None}
    changed = sa.update(deliveries).where(here, deliveries.c.state != DeliveryState.WAITING).values(**again)
    done = connection.execute(changed).rowcount
    found = _read(connection, delivery_id)
    if not done:
        raise Conflict("the delivery waits to be sent anyway")
    return found


def _read(connection: sa.Connection, delivery_id: str) -> DeliveryRecord:
    row = connection.execute(sa.select(*_COLUMNS).where(deliveries.c.id == delivery_id)).first()
    if row is None:
        raise NotFound(f"no delivery is called {delivery_id[:40]!r}", fix="GET /v1/deliveries lists them")
    return DeliveryRecord.model_validate(row._asdict())
