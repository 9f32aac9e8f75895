import time
from typing import Any

import pytest
import sqlalchemy as sa

from serving.errors import TooMany
from serving.jobs import forecast
from serving.jobs.forecast import AHEAD, LOOKS, Waiting, foresee
from serving.jobs.records import StageState
from serving.jobs.scheduling import Head, choose
from serving.jobs.submit import JobRequest
from serving.jobs.tables import job_stages, jobs
from serving.jobs.types import JobState, Lane
from tests.serving.jobs.office import Office


def waiting(name: str, lane: Lane = Lane.MEDIUM, tenant: str = "a", run_s: float | None = 60.0) -> Waiting:
    return Waiting(Head(name, lane, tenant, 0.0, 10.0), run_s)


def test_places_are_those_of_the_policy_and_waits_come_from_measured_times() -> None:
    line = [waiting("low", Lane.LOW), waiting("a1"), waiting("a2"), waiting("b1", tenant="b")]
    places = foresee(line, {}, [100.0, 130.0], now=100.0)
    assert sorted(places, key=lambda name: places[name].position) == ["a1", "b1", "a2", "low"]
    assert [places[name].wait_s for name in ("a1", "b1", "a2", "low")] == [0.0, 30.0, 60.0, 90.0]


def test_what_was_never_measured_has_a_place_and_no_time() -> None:
    [place] = foresee([waiting("a", run_s=None)], {}, [0.0], now=5.0).values()
    assert (place.position, place.wait_s) == (1, None)


def test_a_very_long_line_has_a_place_for_everybody() -> None:
    line = [waiting(str(number), tenant=f"t{number % 3}") for number in range(AHEAD + 500)]
    places = foresee(line, {}, [0.0], now=0.0)
    assert sorted(place.position for place in places.values()) == list(range(1, AHEAD + 501))


def test_looking_ahead_takes_no_longer_with_many_tenants(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = 0

    def counted(heads: list[Head], *rest: Any) -> Head | None:
        nonlocal seen
        seen += len(heads)
        return choose(heads, *rest)

    monkeypatch.setattr(forecast, "choose", counted)
    line = [waiting(str(number), tenant=f"t{number}") for number in range(2500)]
    places = foresee(line, {}, [0.0], now=0.0)
    assert 0 < seen <= LOOKS + len(line)
    assert sorted(place.position for place in places.values()) == list(range(1, 2501))


async def complete(office: Office, job_id: str, run_s: float, cost_s: float) -> None:
    ran = {"state": JobState.COMPLETED, "started_at": 1000.0, "finished_at": 1000.0 + run_s, "gpu_s": cost_s}
    statement = sa.update(jobs).where(jobs.c.id == job_id).values(**ran)
    await office.database.run(lambda connection: connection.execute(statement))


async def test_a_waiting_job_tells_its_place_and_its_wait_and_later_ones_are_charged_what_earlier_ones_cost(
    office: Office,
) -> None:
    await complete(office, (await office.submit()).id, run_s=40.0, cost_s=70.0)
    first, second = await office.submit(), await office.submit()
    assert (second.queue_position, second.estimated_wait_s) == (2, pytest.approx(40.0))
    query = sa.select(jobs.c.predicted_s).where(jobs.c.id == second.id)
    assert await office.database.run(lambda connection: connection.scalar(query)) == 70.0
    await office.store.cancel(first.id)


async def stage_ran(office: Office, job_id: str, name: str, began: float, ended: float | None) -> None:
    values = {"state": StageState.RUNNING if ended is None else StageState.DONE, "started_at": began, "ended_at": ended}
    here = sa.update(job_stages).where(job_stages.c.job_id == job_id, job_stages.c.name == name).values(**values)
    await office.database.run(lambda connection: connection.execute(here))


async def test_waits_are_built_from_the_stages_that_jobs_have_before_them(office: Office) -> None:
    done, busy = await office.submit(), await office.submit()
    await complete(office, done.id, run_s=100.0, cost_s=0.0)
    for name, began, ended in (("clips", 1000.0, 1060.0), ("score", 1060.0, 1090.0), ("captions", 1090.0, 1099.0)):
        await stage_ran(office, done.id, name, began, ended)
    now = time.time()
    working = {"state": JobState.PROCESSING, "started_at": now - 500.0}
    await office.database.run(
        lambda connection: connection.execute(sa.update(jobs).where(jobs.c.id == busy.id).values(**working))
    )
    await stage_ran(office, busy.id, "clips", now - 500.0, now - 10.0)
    await stage_ran(office, busy.id, "score", now - 10.0, None)
    first = await office.submit()
    assert first.estimated_wait_s == pytest.approx(20.0 + 10.0, abs=1), "what is left of the score, and the captions"
    stopping = JobRequest(type="film", input={"title": "A film"}, stop_at="clips")
    await office.store.cancel(first.id)
    await office.desk.submit(stopping)
    last = await office.submit()
    assert last.estimated_wait_s == pytest.approx(30.0 + 60.0, abs=1), "the job before it stops after its clips"


async def test_what_was_measured_serves_for_a_minute(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    await complete(office, (await office.submit()).id, run_s=40.0, cost_s=0.0)
    await office.submit()
    assert (await office.submit()).estimated_wait_s == pytest.approx(40.0)
    await complete(office, (await office.submit()).id, run_s=80.0, cost_s=0.0)
    assert (await office.submit()).estimated_wait_s == pytest.approx(80.0), "two before it, each as measured before"
    monkeypatch.setattr(forecast, "MEASURED_S", 0.0)
    assert (await office.submit()).estimated_wait_s == pytest.approx(3 * 60.0)


async def test_a_full_line_says_when_there_is_room(office: Office) -> None:
    await complete(office, (await office.submit()).id, run_s=40.0, cost_s=0.0)
    made = [await office.submit() for _ in range(20)]
    working = (
        sa.update(jobs).where(jobs.c.id == made[0].id).values(state=JobState.PROCESSING, started_at=made[0].created_at)
    )
    await office.database.run(lambda connection: connection.execute(working))
    await office.submit()
    with pytest.raises(TooMany) as refused:
        await office.submit()
    assert 30 <= refused.value.retry_after_s <= 40
