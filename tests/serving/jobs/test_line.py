"""Claims on both databases, by several workers at once, and what becomes of a claim that was never started."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import sqlalchemy as sa
from dbos import DBOSClient

from serving.jobs.acceptance import NewJob
from serving.jobs.database import Database
from serving.jobs.journal import Journal
from serving.jobs.line import Line, heads_of
from serving.jobs.queue import APPLICATION, APPLICATION_VERSION, QUEUE, WORKFLOW
from serving.jobs.shares import shares_of
from serving.jobs.store import JobStore
from serving.jobs.tables import jobs
from serving.jobs.types import JobState, Lane
from serving.jobs.worker import JobWorker
from tests.serving.jobs.office import Office

StartWorker = Callable[[], Awaitable[JobWorker]]


def new_job(lane: Lane = Lane.MEDIUM, tenant: str = "anybody") -> NewJob:
    return NewJob(
        type="film",
        input={},
        lane=lane,
        timeout_s=60,
        tries=1,
        stages=["clips"],
        request_sha256="0" * 64,
        tenant=tenant,
    )


async def submit(database: Database, *made: NewJob) -> list[str]:
    store = JobStore(database, queued_jobs=20_000)
    return [(await store.accept(new))[0].id for new in made]


async def test_a_claim_says_who_works_on_the_job_and_what_its_tenant_was_charged(database: Database) -> None:
    [job_id] = await submit(database, new_job(Lane.HIGH, "ann"))
    record = await Line(database, "w1").claim()
    assert record is not None
    assert (record.id, record.state, record.runs) == (job_id, JobState.PROCESSING, 1)
    assert record.started_at is not None
    shares = await database.run(shares_of)
    assert shares["high", "ann"] == 1.0
    assert await Line(database, "w2").claim() is None


async def test_lanes_and_tenants_take_turns_as_the_policy_says(database: Database) -> None:
    await submit(database, *[new_job(Lane.LOW, "ann")] * 3, new_job(Lane.LOW, "bob"), new_job(Lane.CRITICAL, "eve"))
    line = Line(database, "w1")
    taken = [record for _ in range(5) if (record := await line.claim()) is not None]
    rows = await database.run(lambda connection: connection.execute(sa.select(jobs.c.id, jobs.c.tenant)).all())
    tenants = {row.id: row.tenant for row in rows}
    assert [tenants[record.id] for record in taken] == ["eve", "ann", "bob", "ann", "ann"]


async def test_workers_that_claim_at_once_share_the_jobs_and_take_none_twice(database: Database) -> None:
    made = await submit(database, *[new_job(tenant=f"t{number % 3}") for number in range(24)])

    async def work(line: Line) -> list[str]:
        taken = []
        while (record := await line.claim()) is not None:
            taken.append(record.id)
        return taken

    taken = await asyncio.gather(*[work(Line(database, f"w{number}")) for number in range(4)])
    assert sorted(job_id for some in taken for job_id in some) == sorted(made)


async def test_a_claim_is_quick_with_ten_thousand_jobs_in_line(database: Database) -> None:
    [first] = await submit(database, new_job())

    def fill(connection: sa.Connection) -> None:
        row = connection.execute(sa.select(jobs).where(jobs.c.id == first)).one()._asdict()
        lanes = list(Lane)
        rows = [
            {**row, "id": f"f{number:020x}", "lane": lanes[number % 4], "tenant": f"t{number % 7}"}
            for number in range(10_000)
        ]
        connection.execute(sa.insert(jobs), rows)

    await database.run(fill)
    line, seconds = Line(database, "w1"), []
    for _ in range(10):
        started = time.monotonic()
        assert await line.claim() is not None
        seconds.append(time.monotonic() - started)
    assert min(seconds) < 0.1
    assert len(await database.run(heads_of)) == 29


async def test_a_claim_that_was_never_started_goes_back_into_the_line(database: Database) -> None:
    [job_id] = await submit(database, new_job())
    line = Line(database, "w1")
    assert await line.claim() is not None
    await line.put_back(job_id)
    record = await Line(database, "w2").claim()
    assert record is not None
    assert (record.id, record.runs) == (job_id, 1)


async def test_what_a_worker_claimed_and_never_started_is_back_in_line_once_it_is_lost(database: Database) -> None:
    [job_id] = await submit(database, new_job())
    assert await Line(database, "lost").claim() is not None
    assert await Journal(database, "w2").requeue("lost") == [job_id]
    record = await Line(database, "w2").claim()
    assert record is not None
    assert (record.id, record.runs) == (job_id, 1)


async def test_a_job_that_waits_in_the_executors_queue_since_an_earlier_version_runs_once(
    office: Office, start_worker: StartWorker
) -> None:
    waiting = [(await office.submit(clips=1)).id for _ in range(3)]
    client = DBOSClient(system_database_engine=office.database.engine, application_name=APPLICATION)
    for job_id in waiting:
        await client.enqueue_async(
            {
                "workflow_name": WORKFLOW,
                "queue_name": QUEUE,
                "workflow_id": job_id,
                "app_version": APPLICATION_VERSION,
                "priority": 3,
            },
            job_id,
        )
    await asyncio.to_thread(client.destroy)
    await start_worker()
    for job_id in waiting:
        assert (await office.until(job_id)).state is JobState.COMPLETED
        states = [event.state for event in await office.store.events(job_id) if event.kind == "state"]
        assert states.count(JobState.COMPLETED) == 1
    ends = [line for line in office.calls() if line.startswith("end")]
    assert len(ends) == len(set(ends))
