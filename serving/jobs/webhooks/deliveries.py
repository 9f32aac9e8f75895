"""Deliveries: the rows of what is to be sent to webhooks; used by the sender and by the routes that show them.

The one invariant: of all the gateways that share a database, one holds a delivery at a time, and only while its claim
lasts: what a gateway claimed before it died is claimed again, and a late outcome of it changes nothing.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field

from serving.errors import Conflict, NotFound
from serving.jobs.database import Database
from serving.jobs.tables import deliveries, job_events, jobs
from serving.jobs.webhooks.policy import DeliveryState, Verdict, message

MAX_LISTED: Final = 200
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
    tenant: str
    body: str


class Deliveries:
    """Reads and changes the rows.

    Args:
        database: opened, with its tables made.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, *, lease_s: float, limit: int) -> list[Claimed]:
        """Take deliveries that are due, the longest due first, and count the try."""
        if not await self._database.run(_is_any_due):
            return []
        return await self._database.run(lambda connection: _claim(connection, time.time(), lease_s, limit))

    async def settle(self, claimed: Claimed, outcome: Verdict, problem: str | None) -> bool:
        """Write what became of a try; False if the claim was lost meanwhile."""
        return await self._database.persist(lambda connection: _settle(connection, claimed, outcome, problem))

    async def put_back(self, claimed: Claimed, pause_s: float) -> None:
        """Give up a claim without a try."""
        values = {"claimed_until": None, "tries": deliveries.c.tries - 1, "next_at": time.time() + pause_s}
        back = sa.update(deliveries).where(*_held(claimed)).values(**values)
        await self._database.run(lambda connection: connection.execute(back))

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


def _due(now: float) -> tuple[sa.ColumnElement[bool], ...]:
    free = deliveries.c.claimed_until.is_(None) | (deliveries.c.claimed_until < now)
    return (deliveries.c.state == DeliveryState.WAITING, deliveries.c.next_at <= now, free)


def _is_any_due(connection: sa.Connection) -> bool:
    # A look takes no write lock, which the other writers of a SQLite file would have to wait for.
    return connection.scalar(sa.select(deliveries.c.id).where(*_due(time.time())).limit(1)) is not None


def _claim(connection: sa.Connection, now: float, lease_s: float, limit: int) -> list[Claimed]:
    due = sa.select(deliveries.c.id).where(*_due(now)).order_by(deliveries.c.next_at).limit(limit)
    until = now + lease_s
    taken = (
        sa.update(deliveries)
        .where(deliveries.c.id.in_(due.with_for_update(skip_locked=True).scalar_subquery()))
        .values(claimed_until=until, tries=deliveries.c.tries + 1)
        .returning(deliveries.c.id)
    )
    ids = list(connection.scalars(taken))
    query = (
        sa.select(
            deliveries.c.id.label("delivery_id"), deliveries.c.event, deliveries.c.tries, job_events, jobs.c.title,
            jobs.c.type.label("job_type"), jobs.c.created_at, jobs.c.parent_id, jobs.c.error, jobs.c.output,
            jobs.c.webhook, jobs.c.tenant,
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
