"""The same kills with PostgreSQL, and what the job system does there otherwise than on SQLite: writers in parallel."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from serving.errors import Conflict
from serving.jobs.types import JobState
from serving.jobs.worker import JobWorker
from tests.serving.jobs.film import CATALOG, CountingRouter
from tests.serving.jobs.office import Office, open_office
from tests.serving.jobs.test_crash_rounds import (
    SEED,
    check_ends,
    check_work,
    crew_of,
    rounds,
    takeover_s,
    until_all_ended,
)


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
