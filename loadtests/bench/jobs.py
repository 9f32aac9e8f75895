"""Measures the job core: how fast jobs are taken in, start and are read, with a long line; used by loadtests.bench.

The one invariant: everything goes through the desk, the store, the hub and the worker that the mesh runs, on a fresh
database, and the line is ten thousand deep while submissions and reads are counted.
"""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

import sqlalchemy as sa
from pydantic import BaseModel

from loadtests.bench.results import Target
from serving.artifacts.store import ArtifactStore
from serving.backends.call import Call
from serving.errors import EngineFailed
from serving.gateway.hub import EventHub
from serving.jobs.database import Database
from serving.jobs.records import JobRecord
from serving.jobs.store import JobStore
from serving.jobs.submit import JobDesk, JobRequest
from serving.jobs.tables import change_job, jobs
from serving.jobs.types import JobContext, JobOutput, JobState, JobType, Lane, Stage
from serving.jobs.worker import JobWorker
from serving.protocol.licences import COMMERCIAL, Use
from serving.protocol.tasks import TaskRequest, TaskResult
from serving.repository.identity import Identity
from serving.settings import Settings

DEEP: Final = 10_000
AT_ONCE: Final = 16
STARTS: Final = 20
WATCHERS: Final = 500
GOALS: Final = {"SQLite": 150.0, "PostgreSQL": 300.0}
"""Submissions a second that each database is held to."""


class Nothing(BaseModel):
    """The input of a job that does nothing."""


async def nothing(job: JobContext, _request: Nothing) -> JobOutput:
    """One stage that ends at once."""

    async def work() -> int:
        return 1

    await job.step("work", work)
    return JobOutput(files={})


CATALOG: Final = {
    "nothing": JobType("nothing", Nothing, nothing, (Stage("work", JobState.PROCESSING),), lane=Lane.MEDIUM)
}
WANTED: Final = JobRequest(type="nothing", input={}, use_cache=False)
URGENT: Final = WANTED.model_copy(update={"lane": Lane.CRITICAL})


class NoModels:
    """Stands where the router does; the job asks it for nothing."""

    async def run(self, request: TaskRequest, call: Call, *, model: str | None = None) -> TaskResult:
        """Refuse."""
        raise EngineFailed(f"nobody serves {type(request).__name__} here")

    def identity(self, request: TaskRequest, *, model: str | None = None, use: Use = COMMERCIAL) -> Identity:
        """Refuse."""
        raise EngineFailed(f"nobody serves {type(request).__name__} here")


def measure_jobs(seconds: float, postgres: str | None, skipped: list[str]) -> list[Target]:
    """All figures of the job core, as what the mesh is held to.

    Args:
        seconds: per figure.
        postgres: address of an empty database; None leaves PostgreSQL out.
        skipped: told what was left out.
    """
    places = {"SQLite": None, "PostgreSQL": postgres}
    targets: list[Target] = []
    for name, url in places.items():
        if name == "PostgreSQL" and url is None:
            skipped.append("jobs on PostgreSQL: give --postgres postgresql://... of an empty database")
            continue
        with tempfile.TemporaryDirectory(prefix="reelmesh-bench-") as folder:
            targets += asyncio.run(_measure(name, Path(folder), url, seconds))
    return targets


async def _measure(name: str, home: Path, url: str | None, seconds: float) -> list[Target]:
    values: dict[str, Any] = {"home": home, "log": {"level": "error"}, **({"jobs_database_url": url} if url else {})}
    settings = Settings.model_validate(values).resolved()
    database = Database(settings.jobs_database_url)
    await database.create()
    try:
        store = JobStore(database, queued_jobs=10 * DEEP)
        desk = JobDesk(store, CATALOG, ArtifactStore(settings.artifacts_url, home / "cache"))
        job_id = (await desk.submit(WANTED, key=None))[0].id
        await database.run(lambda connection: deepen(connection, job_id))
        start_s = await first_stage(settings, desk, store)
        submitted = await rate(lambda: desk.submit(WANTED, key=None), seconds)
        read = await rate(lambda: store.get(job_id), seconds)
        told_s = await watch(database, store, job_id)
    finally:
        await database.close()
    deep = f"jobs on {name}, {DEEP:,} waiting"
    return [
        _target(f"{deep}: submission to first stage, p50, ms", 1000 * start_s, 100, at_least=False),
        _target(f"{deep}: submissions a second", submitted, GOALS[name], at_least=True),
        _target(f"{deep}: status reads a second", read, 1000, at_least=True),
        _target(f"{deep}: an event reaches the last of {WATCHERS} watchers, ms", 1000 * told_s, 2000, at_least=False),
    ]


def _target(name: str, value: float, goal: float, *, at_least: bool) -> Target:
    return Target(name=name, value=value, goal=goal, at_least=at_least)


async def first_stage(settings: Settings, desk: JobDesk, store: JobStore) -> float:
    """Median seconds from a submission to the start of its first stage, while a worker works through the line.

    The job is a critical one, which goes before all that wait: what is measured is how soon the mesh sees that.
    """
    worker = await JobWorker.start(settings, CATALOG, NoModels())
    try:
        waits = []
        for _ in range(STARTS):
            record = await _ended(store, (await desk.submit(URGENT, key=None))[0].id)
            waits.append((record.stages[0].started_at or time.time()) - record.created_at)
        return median(waits)
    finally:
        await worker.shutdown()


async def _ended(store: JobStore, job_id: str) -> JobRecord:
    async with asyncio.timeout(30):
        while not (record := await store.get(job_id)).is_final:  # noqa: ASYNC110  as a client that polls
            await asyncio.sleep(0.02)
    return record


def deepen(connection: sa.Connection, job_id: str) -> None:
    """Put copies of a waiting job into the line, in all lanes but the critical one and for some tenants."""
    row = connection.execute(sa.select(jobs).where(jobs.c.id == job_id)).one()._asdict()
    lanes = [lane for lane in Lane if lane is not Lane.CRITICAL]
    copies = [
        {**row, "id": f"0{number:020x}", "lane": lanes[number % len(lanes)], "tenant": f"tenant-{number % 7}"}
        for number in range(DEEP)
    ]
    connection.execute(sa.insert(jobs), copies)


async def rate(work: Callable[[], Awaitable[object]], seconds: float) -> float:
    """How often a second ``work`` is done, :data:`AT_ONCE` at a time."""
    done, end = 0, time.perf_counter() + seconds
    began = time.perf_counter()

    async def repeat() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await work()
            done += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(repeat())
    return done / (time.perf_counter() - began)


async def watch(database: Database, store: JobStore, job_id: str) -> float:
    """Seconds until the last of :data:`WATCHERS` has heard of one event."""
    hub = EventHub(store)
    after = (await store.get(job_id)).last_event
    heard: list[float] = []

    async def follow() -> None:
        async for events in hub.follow(job_id, after=after):
            if events:
                heard.append(time.perf_counter())
                return

    watchers = [asyncio.create_task(follow()) for _ in range(WATCHERS)]
    await asyncio.sleep(1)
    began = time.perf_counter()
    told = {"progress": 0.5}
    await database.run(
        lambda connection: change_job(connection, job_id, kind="progress", among=[JobState.QUEUED], values=told)
    )
    await asyncio.wait_for(asyncio.gather(*watchers), 30)
    await hub.close()
    return max(heard) - began
