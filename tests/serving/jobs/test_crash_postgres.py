"""The same kills with PostgreSQL, and what the job system does there otherwise than on SQLite: writers in parallel."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from serving.errors import Conflict
from serving.jobs.tables import workers
from serving.jobs.types import JobState
from serving.jobs.worker import JobWorker
from tests.serving.jobs.film import CATALOG, CountingRouter
from tests.serving.jobs.office import Office, open_office
from tests.serving.jobs.test_crash_rounds import (
    SEED,
    check_ends,
    check_work,
    crew_of,
    owners,
    rounds,
    takeover_s,
    until_all_ended,
)

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def bureau(tmp_path: Path, postgres_database: str) -> AsyncIterator[Office]:
    async with open_office(tmp_path / "home", jobs_database_url=postgres_database) as opened:
        yield opened


@pytest.fixture
async def worker(bureau: Office) -> AsyncIterator[JobWorker]:
    router = CountingRouter(bureau.artifacts, bureau.settings.home / "calls.log")
    started = await JobWorker.start(bureau.settings, CATALOG, router)
    yield started
    await started.shutdown()


async def test_kills_at_random_moments_lose_no_job_on_postgresql(bureau: Office) -> None:
    print(f"seed {SEED}: set REELMESH_TEST_SEED to kill in the same order")
    home, url, chance = bureau.settings.home, bureau.settings.jobs_database_url, random.Random(SEED)
    with crew_of(home, url, chance) as crew:
        crew.start("front", "one", "two")
        killed = await rounds(bureau, crew, 5, chance)
        print(f"taken over within {await takeover_s(bureau, crew):.2f} s")
        await until_all_ended(bureau)
    await check_ends(bureau)
    await check_work(bureau, killed + 1)


@pytest.fixture
def spawn_elsewhere(bureau: Office, tmp_path: Path) -> Iterator[Callable[[str], "subprocess.Popen[str]"]]:
    """Starts workers that share the databases alone, as on machines of their own."""
    children: list[subprocess.Popen[str]] = []
    shared = {
        "REELMESH_JOBS_DATABASE_URL": bureau.settings.jobs_database_url,
        "REELMESH_ARTIFACTS_URL": bureau.settings.artifacts_url,
        "REELMESH_WORKER__BEAT_S": "0.2",
        "REELMESH_WORKER__SILENT_S": "1.5",
    }

    def spawn(name: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "tests.serving.jobs.worker_process", str(tmp_path / name)]
        (tmp_path / name).mkdir()
        with (tmp_path / f"{name}.log").open("w") as out:
            child = subprocess.Popen(command, cwd=ROOT, env=os.environ | shared, stdout=out, stderr=out, text=True)
        children.append(child)
        return child

    yield spawn
    for child in children:
        child.kill()
        child.wait()


async def until_joined(office: Office, count: int) -> None:
    query, end = sa.select(sa.func.count()).select_from(workers), time.monotonic() + 30
    while await office.database.run(lambda connection: connection.scalar(query)) != count:
        assert time.monotonic() < end, f"there are not {count} workers"
        await asyncio.sleep(0.05)


async def test_a_worker_elsewhere_that_stood_still_is_taken_over_and_is_missed_again_when_it_dies_later(
    bureau: Office, spawn_elsewhere: Callable[[str], "subprocess.Popen[str]"]
) -> None:
    pids = [spawn_elsewhere(name).pid for name in ("one", "two")]
    await until_joined(bureau, 2)
    job_id = (await bureau.submit(clips=1, seconds=4)).id
    await bureau.until(job_id, lambda record: record.stage == "clips")
    at_work = (await owners(bureau))[job_id] or ""
    [one] = [pid for pid in pids if f"-{pid}-" in at_work]
    os.kill(one, signal.SIGSTOP)
    taken = await bureau.until(job_id, lambda record: record.runs == 2)
    assert taken.stage == "clips"
    os.kill(one, signal.SIGCONT)
    assert (await bureau.until(job_id)).state is JobState.COMPLETED
    assert [event.state for event in await bureau.store.events(job_id)].count(JobState.COMPLETED) == 1
    await until_joined(bureau, 2)
    # Of lengths that no job had before: the cache would answer for them.
    jobs = [(await bureau.submit(clips=1, seconds=3 + number / 2)).id for number in range(2)]
    for each in jobs:
        await bureau.until(each, lambda record: record.stage == "clips")
    os.kill(one, signal.SIGKILL)
    ended = [await bureau.until(each, timeout_s=30) for each in jobs]
    assert [record.state for record in ended] == [JobState.COMPLETED] * 2
    assert sorted(record.runs for record in ended) == [1, 2]


@pytest.mark.usefixtures("worker")
async def test_jobs_run_fail_and_are_cancelled_on_postgresql(bureau: Office) -> None:
    fine, busy, long = [
        await bureau.submit(key=str(index), **wanted)
        for index, wanted in enumerate([{}, {"trouble": "busy", "seconds": 0.05}, {"seconds": 30}])
    ]
    assert (await bureau.until(fine.id)).state is JobState.COMPLETED
    assert (await bureau.until(busy.id)).dead_at is not None
    await bureau.until(long.id, lambda record: record.stage == "clips")
    await bureau.store.cancel(long.id)
    assert (await bureau.until(long.id)).state is JobState.CANCELLED
    with pytest.raises(Conflict, match="cancelled already"):
        await bureau.store.cancel(long.id)
    events = await bureau.store.events(fine.id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))


async def test_one_key_sent_many_times_at_once_makes_one_job_on_postgresql(bureau: Office) -> None:
    answers = await asyncio.gather(*(bureau.submit(key="same") for _ in range(8)), return_exceptions=True)
    made = {answer.id for answer in answers if not isinstance(answer, BaseException)}
    assert len(made) == 1
    assert (await bureau.submit(key="same")).id in made
    assert len((await bureau.store.page()).jobs) == 1
