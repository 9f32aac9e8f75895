import asyncio
import math
from pathlib import Path

import pytest
import sqlalchemy as sa

from serving.errors import BadInput, Unavailable
from serving.jobs import database as module
from serving.jobs.database import BackOff, Database, sqlalchemy_url
from serving.jobs.tables import lane_shares


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        pytest.param("sqlite:////tmp/x.sqlite", "sqlite", id="file"),
        pytest.param("postgresql://u:p@h/d", "postgresql+psycopg", id="PostgreSQL"),
        pytest.param("postgres://u:p@h/d", "postgresql+psycopg", id="as Heroku writes it"),
    ],
)
def test_addresses_get_the_driver_that_is_installed(url: str, driver: str) -> None:
    assert sqlalchemy_url(url).drivername == driver


@pytest.mark.parametrize("url", ["", "sqlite://", "mysql://u:secret@h/d", "jobs.sqlite", "::"])
def test_other_addresses_are_refused_without_showing_a_password(url: str) -> None:
    with pytest.raises(BadInput) as caught:
        sqlalchemy_url(url)
    assert caught.value.field == "jobs_database_url"
    assert "secret" not in str(caught.value)


async def test_several_processes_may_make_the_tables_at_once(tmp_path: Path) -> None:
    databases = [Database(f"sqlite:///{tmp_path}/jobs.sqlite") for _ in range(3)]
    await asyncio.gather(*[database.create() for database in databases])
    names = await databases[0].run(lambda connection: sa.inspect(connection).get_table_names())
    assert {"jobs", "job_events", "job_stages", "workers", "workflow_status"} <= set(names)
    for database in databases:
        await database.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_tables_of_an_earlier_version_become_todays_and_keep_their_rows(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    file = f"sqlite:///{tmp_path}/jobs.sqlite"
    database = Database(file if kind == "sqlite" else request.getfixturevalue("postgres_database"))
    await database.create()
    row = {"lane": "low", "tenant": "studio", "virtual_s": 2.0}
    newer = [("jobs", "tenant"), ("jobs", "taken_at"), ("job_stages", "failed_cpu_s"), ("job_stages", "failed_gpu_s")]

    def back(connection: sa.Connection) -> None:
        connection.execute(sa.insert(lane_shares).values(**row))
        connection.exec_driver_sql("DROP INDEX jobs_in_line")
        for table, column in newer:
            connection.exec_driver_sql(f"ALTER TABLE {table} DROP COLUMN {column}")
        connection.exec_driver_sql("ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 3")
        connection.exec_driver_sql("DROP INDEX jobs_by_state")
        connection.exec_driver_sql("CREATE INDEX jobs_by_state ON jobs (state, priority, id)")

    def now(connection: sa.Connection) -> tuple[set[tuple[str, str]], dict[str, object], object]:
        inspector = sa.inspect(connection)
        tables = sorted({"jobs", *(table for table, _ in newer)})
        columns = {(table, column["name"]) for table in tables for column in inspector.get_columns(table)}
        indexes = {str(index["name"]): index["column_names"] for index in inspector.get_indexes("jobs")}
        return columns, indexes, connection.execute(sa.select(lane_shares)).mappings().one()

    await database.run(back)
    await database.create()
    columns, indexes, kept = await database.run(now)
    assert set(newer) <= columns
    assert ("jobs", "priority") not in columns, "nobody reads it, and what is new does not write it"
    assert "jobs_in_line" in indexes
    assert indexes["jobs_by_state"] == ["state", "id"]
    assert kept == row
    await database.close()


async def test_a_database_that_cannot_be_opened_is_told_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    database = Database(f"sqlite:///{tmp_path}/folder")
    with pytest.raises(Unavailable, match="check that the file is writable"):
        await database.create()
    await database.close()


async def test_a_file_that_is_no_database_is_told_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_text("these are somebody's notes, not a database; " * 50)
    database = Database(f"sqlite:///{tmp_path}/jobs.sqlite")
    with pytest.raises(Unavailable, match="not a database"):
        await database.create()
    await database.close()


async def test_facts_of_running_jobs_wait_for_a_database_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, asked = Database(f"sqlite:///{tmp_path}/jobs.sqlite"), 0

    def work(connection: sa.Connection) -> int:
        nonlocal asked
        asked += 1
        return connection.scalar(sa.text("SELECT 7" if asked > 2 else "SELECT * FROM away")) or 0

    assert await database.persist(work) == 7
    assert asked == 3
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    with pytest.raises(sa.exc.OperationalError, match="away"):
        await database.persist(lambda connection: connection.scalar(sa.text("SELECT * FROM away")))
    await database.close()


def test_connections_to_a_server_that_answers_nothing_are_given_up() -> None:
    query = sqlalchemy_url("postgresql://u:p@h/d?connect_timeout=30&sslmode=require").query
    assert query["connect_timeout"] == "30", "what the address says stays"
    assert query["sslmode"] == "require"
    assert int(str(query["tcp_user_timeout"])) == 10_000
    assert {"keepalives_idle", "keepalives_interval", "keepalives_count"} <= set(query)
    assert sqlalchemy_url("sqlite:////tmp/x.sqlite").query == {}


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(sa.exc.InternalError("UPDATE", {}, Exception("read-only")), id="a replica after a failover"),
        pytest.param(sa.exc.TimeoutError("QueuePool limit"), id="no free connection"),
    ],
)
async def test_a_database_that_takes_nothing_for_a_while_is_waited_for_as_long_as_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    database, asked = Database(f"sqlite:///{tmp_path}/jobs.sqlite"), 0
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)

    def work(_: sa.Connection) -> int:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise error
        return asked

    assert await database.persist(work, patience_s=math.inf) == 3
    asked = 0
    with pytest.raises(type(error)):
        await database.persist(work)
    await database.close()


def test_pauses_between_tries_grow_up_to_five_seconds() -> None:
    back_off = BackOff()
    assert [back_off.next_s() for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
