"""Kills workers and front ends at random moments, round after round, and counts what became of the jobs."""

import asyncio
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from serving.jobs.states import FINAL
from serving.jobs.tables import job_events, jobs
from serving.jobs.types import JobState
from tests.serving.jobs.crew import Crew
from tests.serving.jobs.office import Office, open_office

SEED = int(os.environ.get("REELMESH_TEST_SEED", "0")) or random.randrange(1 << 32)
TAKEOVER_S = 15.0
END_S = 40.0
"""How long the crew may take to finish what is left after the last kill."""


@contextmanager
def crew_of(home: Path, database_url: str, chance: random.Random) -> Iterator[Crew]:
    crew = Crew(home, database_url, chance)
    try:
        yield crew
    finally:
        crew.kill(*crew.members)


def accepted_films(office: Office) -> list[str]:
    """Ids of the films whose acceptance the front end was told."""
    path = office.settings.home / "accepted"
    return path.read_text().split() if path.exists() else []


async def until_accepted(office: Office, more: int) -> None:
    """Wait until the front end, as it runs now, has taken in that many more films."""
    wanted, end = len(accepted_films(office)) + more, time.monotonic() + END_S
    while len(accepted_films(office)) < wanted:
        assert time.monotonic() < end, f"seed {SEED}: the front end takes nothing in"
        await asyncio.sleep(0.05)


async def until_all_ended(office: Office, timeout_s: float = END_S) -> None:
    """Tell the front end to take nothing more in, and wait until what it took in has ended."""
    end = time.monotonic() + timeout_s
    (office.settings.home / "closed").touch()
    while not (office.settings.home / "left").exists():
        assert time.monotonic() < end, f"seed {SEED}: the front end does not stop"
        await asyncio.sleep(0.05)
    while left := {key: n for key, n in (await office.store.counts()).items() if key[1] not in FINAL}:
        assert time.monotonic() < end, f"seed {SEED}: never ended: {left}"
        await asyncio.sleep(0.1)


async def owners(office: Office) -> dict[str, str | None]:
    """Who is at which job that has not ended."""
    query = sa.select(jobs.c.id, jobs.c.worker).where(jobs.c.state.not_in(list(FINAL)))
    rows = await office.database.run(lambda connection: connection.execute(query).all())
    return {row.id: row.worker for row in rows}


async def rounds(office: Office, crew: Crew, count: int, chance: random.Random) -> int:
    """Kill and start again ``count`` times; how many processes were killed."""
    await until_accepted(office, 4)
    killed = 0
    for number in range(count):
        await asyncio.sleep(chance.uniform(0.1, 0.8))
        victims = crew.victims()
        crew.kill(*victims)
        print(f"round {number}: killed {victims}, jobs {sum((await office.store.counts()).values())}")
        killed += len(victims)
        crew.start(*victims)
    # What it was killed over is asked for again, so that it is known to all.
    await until_accepted(office, 1)
    return killed


async def takeover_s(office: Office, crew: Crew) -> float:
    """Kill one worker that holds jobs, start no other in its place, and measure until somebody is at each of them."""
    pid, lost = crew.members["one"].pid, dict[str, str | None]()
    end = time.monotonic() + TAKEOVER_S
    while not lost and time.monotonic() < end:
        lost = {job: worker for job, worker in (await owners(office)).items() if f"-{pid}-" in (worker or "")}
        await asyncio.sleep(0.01)
    assert lost, f"seed {SEED}: the worker had nothing to do"
    crew.kill("one")
    killed = time.monotonic()
    while waiting := [
        job for job, worker in (await owners(office)).items() if job in lost and worker in (None, lost[job])
    ]:
        assert time.monotonic() - killed < TAKEOVER_S, f"seed {SEED}: nobody is at {waiting}"
        await asyncio.sleep(0.05)
    return time.monotonic() - killed


async def check_ends(office: Office) -> None:
    """Every job that was accepted is there and ended once, and its history has no gap."""
    accepted = accepted_films(office)
    assert len(accepted) == len(set(accepted)), "a film was accepted twice"
    query = sa.select(jobs.c.id, jobs.c.state, jobs.c.dead_at, jobs.c.runs, jobs.c.error)
    rows = {row.id: row for row in await office.database.run(lambda connection: connection.execute(query).all())}
    assert set(accepted) <= set(rows), "an accepted film is gone"
    # The one that the front end was told nothing of, since it was killed before, is asked for again by its key.
    assert len(rows) == len(accepted)
    states = Counter(row.state for row in rows.values())
    failed = [row for row in rows.values() if row.state == JobState.FAILED]
    print(f"seed {SEED}: {dict(states)}", *failed, sep="\n")
    assert set(states) <= {JobState.COMPLETED, JobState.FAILED}, states
    assert all(row.dead_at for row in failed), f"seed {SEED}: failed for another reason than lost workers: {failed}"
    events = await office.database.run(lambda connection: connection.execute(sa.select(job_events)).all())
    history = defaultdict(list)
    for event in sorted(events, key=lambda event: event.seq):
        history[event.job_id].append(event)
    for job_id in rows:
        assert [event.seq for event in history[job_id]] == list(range(1, len(history[job_id]) + 1))
        ends = [event for event in history[job_id] if event.kind == "state" and event.state in FINAL]
        assert len(ends) == 1
        assert ends == history[job_id][-1:]


async def check_work(office: Office, killed: int) -> None:
    """No call of a stage began after the stage was done; at most those were made twice that a kill cut off."""
    done: dict[tuple[str, str], float] = {}
    query = sa.select(job_events).where(job_events.c.stage_state == "done")
    for event in await office.database.run(lambda connection: connection.execute(query).all()):
        done[event.job_id, event.stage] = event.at
    ends: Counter[tuple[str, ...]] = Counter()
    for line in office.calls():
        at, what, job_id, stage, seed = line.split()
        if what == "begin":
            assert float(at) <= done.get((job_id, stage), float("inf")), f"{stage} of {job_id} ran again"
        if what == "end":
            ends[job_id, stage, seed] += 1
    again = sum(count - 1 for count in ends.values())
    print(f"{len(ends)} calls, {again} of them made again, {killed} processes killed")
    calls_at_work = 8  # two jobs a worker, four calls each
    assert again <= killed * calls_at_work, f"seed {SEED}: {again} calls made again, {killed} processes killed"


@pytest.mark.timeout(120)
async def test_kills_at_random_moments_lose_no_job_and_repeat_no_stage(tmp_path: Path) -> None:
    print(f"seed {SEED}: set REELMESH_TEST_SEED to kill in the same order")
    chance = random.Random(SEED)
    async with open_office(tmp_path / "home") as office:
        with crew_of(office.settings.home, office.settings.jobs_database_url, chance) as crew:
            crew.start("front", "one", "two")
            killed = await rounds(office, crew, 20, chance)
            print(f"taken over within {await takeover_s(office, crew):.2f} s")
            await until_all_ended(office)
        await check_ends(office)
        await check_work(office, killed + 1)
