"""Database: one engine on SQLite or PostgreSQL for our tables and DBOS's; opened by gateway and worker.

The one invariant: both sets of tables live in one database, so a job's row and its place in the queue are
written in one transaction: neither exists without the other.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa
import structlog

from serving.errors import BadInput, Unavailable, foreign_text
from serving.jobs.tables import metadata

T = TypeVar("T")

log = structlog.get_logger()

BUSY_TIMEOUT_MS: Final = 30_000
"""How long a SQLite writer waits for another one."""
PATIENCE_S: Final = 120.0
"""How long facts of a running job wait for a database that is away; a failover of PostgreSQL takes about a minute."""
_LONGEST_PAUSE_S: Final = 5.0
AWAY: Final = (
    sa.exc.OperationalError,
    sa.exc.InterfaceError,
    sa.exc.InternalError,  # PostgreSQL takes no writes: a failover left this connection at the old primary
    sa.exc.TimeoutError,  # no connection became free
)
"""What is raised while the database is away, busy or read-only for a while."""
_CONNECTION: Final = {
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
"""So that a server which answers nothing any more is given up within about ten seconds (the last in milliseconds)."""
_IDLE_S: Final = 10
"""How long PostgreSQL keeps the locks of a process that says nothing in the middle of a transaction."""
_LOCK_KEY: Final = 7_385_001
"""PostgreSQL advisory lock held while tables are made."""


def sqlalchemy_url(url: str) -> sa.URL:
    """Parse the address, naming the driver that is installed (psycopg 3) for PostgreSQL.

    Raises:
        BadInput: neither SQLite nor PostgreSQL, or not an address.
    """
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise _bad_url(url) from error
    if parsed.drivername in {"postgres", "postgresql", "postgresql+psycopg"}:
        # In the address, so that DBOS's connections have them too; what the address says itself stays.
        named = {**_CONNECTION, **parsed.query}
        return parsed.set(drivername="postgresql+psycopg", query=named)
    if parsed.drivername == "sqlite" and parsed.database:
        return parsed
    raise _bad_url(url)


def _bad_url(url: str) -> BadInput:
    return BadInput(
        f"{foreign_text(url.rpartition('@')[2])!r} is no address of a jobs database",
        field="jobs_database_url",
        fix="write sqlite:////absolute/file or postgresql://user:password@host/database",
    )


def away_text(error: Exception) -> str:
    """Why the database is away, on one line."""
    return foreign_text(getattr(error, "orig", None) or error)


class BackOff:
    """Growing pauses between tries of what fails again and again; made anew once it has succeeded."""

    def __init__(self, first_s: float = 0.1) -> None:
        self._next_s = first_s

    def next_s(self) -> float:
        """The next pause, twice the last one, up to five seconds."""
        pause_s, self._next_s = self._next_s, min(2 * self._next_s, _LONGEST_PAUSE_S)
        return pause_s


class Database:
    """Runs short transactions in threads, so the event loop never waits for a disk.

    Args:
        url: ``sqlite:////absolute/file`` or ``postgresql://...``.
    """

    def __init__(self, url: str) -> None:
        self.url = sqlalchemy_url(url)
        self._is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = sa.create_engine(self.url, pool_pre_ping=not self._is_sqlite, pool_size=10, max_overflow=10)
        sa.event.listen(self.engine, "connect", _set_up_sqlite if self._is_sqlite else _set_up_postgres)

    @property
    def dbos_url(self) -> str:
        """The same address for DBOS, password included."""
        return self.url.render_as_string(hide_password=False)

    async def create(self) -> None:
        """Make missing tables, ours and DBOS's; safe when several processes do it at once.

        Raises:
            Unavailable: the database cannot be reached.
        """
        try:
            await asyncio.to_thread(self._create)
        except (sa.exc.DatabaseError, OSError) as error:
            cause = error.orig if isinstance(error, sa.exc.DatabaseError) else error
            raise Unavailable(
                f"the jobs database cannot be opened: {foreign_text(cause)}",
                field="jobs_database_url",
                fix="check that the file is writable, or that the server runs and the password is right",
            ) from error

    def _create(self) -> None:
        from dbos import DBOS  # takes a second to import

        if self._is_sqlite:
            Path(str(self.url.database)).parent.mkdir(parents=True, exist_ok=True)
        with self.engine.begin() as connection:
            lock(connection, _LOCK_KEY)
            metadata.create_all(connection)
            _add_missing(connection)
        DBOS.migrate(self.dbos_url)

    async def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Run ``work`` in one transaction in a thread; its exception rolls back."""
        return await asyncio.to_thread(self._run, work)

    async def persist(self, work: Callable[[sa.Connection], T], *, patience_s: float | None = None) -> T:
        """As :meth:`run`, but waits out a database that is away; ``work`` must bear to be repeated.

        Args:
            work: as for :meth:`run`.
            patience_s: how long to wait; None for :data:`PATIENCE_S`, infinity for as long as it takes.
        """
        back_off = BackOff()
        end = time.monotonic() + (PATIENCE_S if patience_s is None else patience_s)
        while True:
            try:
                return await self.run(work)
            except AWAY as error:
                pause_s = back_off.next_s()
                if time.monotonic() + pause_s > end:
                    raise
                log.warning("jobs_database_away", error=away_text(error), retry_in_s=pause_s)
            await asyncio.sleep(pause_s)

    def _run(self, work: Callable[[sa.Connection], T]) -> T:
        with self.engine.begin() as connection:
            return work(connection)

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.to_thread(self.engine.dispose)


def lock(connection: sa.Connection, key: int) -> None:
    """Wait until no other transaction holds the lock ``key``, and hold it to this one's end.

    On SQLite there is one lock for all that write; it is best taken before anything is read.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))


def _add_missing(connection: sa.Connection) -> None:
    """Bring tables of an earlier version up to date: they gain columns, each nullable or with a default.

    One column went: the ``priority`` of jobs, which nobody read and every new row would have to fill.
    """
    inspector = sa.inspect(connection)
    for table in metadata.sorted_tables:
        known = {column["name"] for column in inspector.get_columns(table.name)}
        if table.name == "jobs" and "priority" in known:
            connection.exec_driver_sql("DROP INDEX IF EXISTS jobs_by_state")  # it lay over the column; it is made anew
            connection.exec_driver_sql("ALTER TABLE jobs DROP COLUMN priority")
        for column in table.columns:
            if column.name not in known:
                definition = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {definition}")
        for index in table.indexes:
            index.create(connection, checkfirst=True)


def _set_up_sqlite(connection: Any, _record: Any) -> None:  # noqa: ANN401  a DBAPI connection has no type
    # IMMEDIATE takes the write lock when a transaction begins: writers queue up instead of failing half-way.
    connection.isolation_level = "IMMEDIATE"
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    _use_wal(connection)
    connection.execute("PRAGMA foreign_keys=ON")


def _set_up_postgres(connection: Any, _record: Any) -> None:  # noqa: ANN401  a DBAPI connection has no type
    # A process that stands still, or is cut off, in the middle of a transaction must not keep its locks for hours.
    connection.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE_S}s'")
    connection.commit()


def _use_wal(connection: sqlite3.Connection) -> None:
    # The first switch of a fresh file waits for nobody, whatever busy_timeout says: gateway and worker do it at once.
    end = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)
