"""The keeper on a real database, SQLite and PostgreSQL, and a real store."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from serving.errors import BadInput, Conflict, NotFound
from serving.jobs import tables
from serving.jobs.keeper import LEASE_S, Keeper
from serving.jobs.records import JobRecord
from serving.jobs.types import JobOutput, JobState
from serving.jobs.worker import JobWorker
from serving.protocol.artifact import ArtifactRef
from serving.settings import RetentionSettings
from serving.telemetry import ARTIFACTS_HELD, JOBS_EXPIRED
from tests.serving.jobs.office import Office, open_office

DAY_S = 86_400.0


@pytest.fixture(params=["sqlite", "postgresql"])
async def any_office(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Office]:
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres_database")
    async with open_office(tmp_path / "home", jobs_database_url=url) as opened:
        yield opened


def keeper_of(office: Office, **bounds: float | None) -> Keeper:
    told = RetentionSettings.model_validate({"age_s": DAY_S, "grace_s": 0.2, **bounds})
    return Keeper(office.database, office.artifacts, told)


async def put(office: Office, text: str) -> ArtifactRef:
    return await office.artifacts.put_bytes(text.encode(), media_type="image/png", name=f"{text[:9]}.png")


async def change(office: Office, job_id: str, **values: object) -> None:
    statement = sa.update(tables.jobs).where(tables.jobs.c.id == job_id).values(**values)
    await office.database.run(lambda connection: connection.execute(statement))


async def end(office: Office, record: JobRecord, ago_s: float, output: ArtifactRef | None = None) -> None:
    files = {"film": output} if output else {}
    told = JobOutput(files=files).model_dump(mode="json")
    await change(office, record.id, state=JobState.COMPLETED, finished_at=time.time() - ago_s, output=told)


async def rows_of(office: Office, job_id: str) -> int:
    def count(connection: sa.Connection) -> int:
        found = 0
        for table in (tables.job_events, tables.job_stages, tables.stage_results, tables.deliveries):
            query = sa.select(sa.func.count()).select_from(table).where(table.c.job_id == job_id)
            found += connection.scalar(query) or 0
        schema = None if connection.dialect.name == "sqlite" else "dbos"
        for name in ("workflow_status", "operation_outputs", "workflow_input", "workflow_output"):
            table_ = sa.table(name, sa.column("workflow_uuid"), schema=schema)
            query = sa.select(sa.func.count()).select_from(table_).where(table_.c.workflow_uuid == job_id)
            found += connection.scalar(query) or 0
        return found

    return await office.database.run(count)


async def test_row_and_bytes_of_an_old_job_go_and_those_of_others_stay(any_office: Office) -> None:
    office = any_office
    poster, shared, film = [await put(office, name) for name in ("poster", "shared", "film")]
    old = await office.submit(key="k", poster=poster.model_dump())
    new = await office.submit(poster=shared.model_dump())
    waiting = await office.submit(poster=shared.model_dump())
    await end(office, old, 2 * DAY_S, film)
    await end(office, new, 60, shared)
    keeper = keeper_of(office)
    first = await keeper.pass_once()
    assert (first.jobs_by_age, first.removed) == ([old.id], [])
    assert set(first.unneeded) == {poster.sha256, film.sha256}
    with pytest.raises(NotFound):
        await office.store.get(old.id)
    assert await rows_of(office, old.id) == 0
    await asyncio.sleep(0.3)
    second = await keeper.pass_once()
    assert set(second.removed) == {poster.sha256, film.sha256}
    assert not await office.artifacts.exists(film)
    assert await office.artifacts.exists(shared)
    assert {(await office.store.get(each.id)).id for each in (new, waiting)} == {new.id, waiting.id}
    assert (await office.submit(key="k")).id != old.id
    assert ARTIFACTS_HELD._value.get() == 1
    assert JOBS_EXPIRED.labels("age")._value.get() >= 1


async def test_by_bytes_the_jobs_that_ended_first_go_first(any_office: Office) -> None:
    office = any_office
    records = []
    for index in range(4):
        records.append(await office.submit())
        await end(office, records[-1], 1000 - index, await put(office, f"{index}" * 100))
    report = await keeper_of(office, held_bytes=250).pass_once()
    assert report.jobs_by_bytes == [records[0].id, records[1].id]


async def test_a_job_that_another_one_goes_on_from_stays_until_that_one_ended(any_office: Office) -> None:
    office = any_office
    parent, child = await office.submit(), await office.submit()
    await end(office, parent, 2 * DAY_S)
    await change(office, child.id, parent_id=parent.id)
    assert (await keeper_of(office).pass_once()).jobs_by_age == []
    await end(office, child, 60)
    assert (await keeper_of(office).pass_once()).jobs_by_age == [parent.id]


async def test_nothing_goes_that_a_running_job_may_have_heard_of(office: Office) -> None:
    ref = await put(office, "poster")
    running = await office.submit()
    await change(office, running.id, state=JobState.PROCESSING, started_at=time.time() - 60)
    keeper = keeper_of(office)
    assert (await keeper.pass_once()).unneeded == [ref.sha256]
    await asyncio.sleep(0.3)
    assert (await keeper.pass_once()).removed == []
    await end(office, running, 0)
    assert (await keeper.pass_once()).removed == [ref.sha256]


async def test_everything_about_a_job_that_ran_goes(
    office: Office, start_worker: Callable[[], Awaitable[JobWorker]]
) -> None:
    await start_worker()
    job = await office.until((await office.submit(clips=2)).id)
    assert job.state is JobState.COMPLETED
    await asyncio.sleep(0.1)  # the executor writes down that it is over a moment later
    assert await rows_of(office, job.id) > 8
    keeper = keeper_of(office, age_s=0.001)
    assert (await keeper.pass_once()).jobs_by_age == [job.id]
    assert await rows_of(office, job.id) == 0
    await asyncio.sleep(0.3)
    assert len((await keeper.pass_once()).removed) == 4
    assert not list((office.settings.home / "artifacts").rglob("??/*"))


async def test_a_job_that_is_submitted_while_the_keeper_works_always_finds_its_input(office: Office) -> None:
    keeper, chance = keeper_of(office, grace_s=0.4), random.Random(7)
    stop = asyncio.Event()
    passes = refused = accepted = removed = 0

    async def keep() -> None:
        nonlocal passes, removed
        while not stop.is_set():
            removed += len((await keeper.pass_once()).removed)
            passes += 1

    async def client(index: int) -> None:
        nonlocal refused, accepted
        for turn in range(4):
            ref = await put(office, f"{index} {turn}")
            # Around the moment when the bytes are due.
            await asyncio.sleep(0.35 + chance.random() * 0.3)
            try:
                job = await office.submit(poster=ref.model_dump())
            except BadInput:
                refused += 1
                continue
            accepted += 1
            await asyncio.sleep(0.9)
            assert await office.artifacts.get_bytes(ref) == f"{index} {turn}".encode()
            await change(office, job.id, state=JobState.COMPLETED, finished_at=time.time())

    keeping = asyncio.create_task(keep())
    await asyncio.gather(*(client(index) for index in range(12)))
    stop.set()
    await keeping
    assert passes > 3
    assert refused + accepted == 48
    assert accepted > 0
    assert removed == refused


async def test_one_keeper_works_at_a_time_and_a_silent_one_is_succeeded(any_office: Office) -> None:
    office = any_office
    first, second = keeper_of(office), keeper_of(office)
    assert await first._lease(LEASE_S)
    assert await first._lease(LEASE_S)
    with pytest.raises(Conflict, match="another process"):
        await second.pass_once()
    assert (await second.pass_once(dry_run=True)).dry_run
    await first._lease(-1.0)
    await second.pass_once()
    await asyncio.gather(first.pass_once(), second.pass_once(), return_exceptions=True)
    await first.pass_once()


async def test_a_dry_run_removes_nothing(office: Office) -> None:
    old = await office.submit()
    await end(office, old, 2 * DAY_S, await put(office, "film"))
    report = await keeper_of(office).pass_once(dry_run=True)
    assert (report.jobs_by_age, len(report.unneeded)) == ([old.id], 1)
    assert (await office.store.get(old.id)).id == old.id


async def test_it_keeps_house_by_itself(office: Office) -> None:
    old = await office.submit()
    await end(office, old, 2 * DAY_S, await put(office, "film"))
    keeper = keeper_of(office, period_s=0.1)
    keeper.start()
    for _ in range(100):
        await asyncio.sleep(0.05)
        if not list((office.settings.home / "artifacts").rglob("??/*")):
            break
    await keeper.close()
    assert not list((office.settings.home / "artifacts").rglob("??/*"))
