import pytest
import sqlalchemy as sa

from serving.errors import TooMany
from serving.jobs.forecast import AHEAD, Waiting, foresee
from serving.jobs.scheduling import Head
from serving.jobs.tables import jobs
from serving.jobs.types import JobState, Lane
from tests.serving.jobs.office import Office


def waiting(name: str, lane: Lane = Lane.MEDIUM, tenant: str = "a", created_at: float = 0.0) -> Waiting:
    return Waiting(Head(name, lane, tenant, created_at, 10.0), "film")


def test_places_are_those_of_the_policy_and_waits_come_from_measured_times() -> None:
    line = [waiting("low", Lane.LOW), waiting("a1"), waiting("a2"), waiting("b1", tenant="b")]
    places = foresee(line, {}, [100.0, 130.0], {"film": 60.0}, now=100.0)
    assert sorted(places, key=lambda name: places[name].position) == ["a1", "b1", "a2", "low"]
    assert [places[name].wait_s for name in ("a1", "b1", "a2", "low")] == [0.0, 30.0, 60.0, 90.0]


def test_what_was_never_measured_has_a_place_and_no_time() -> None:
    [place] = foresee([waiting("a")], {}, [0.0], {}, now=5.0).values()
    assert (place.position, place.wait_s) == (1, None)


def test_a_very_long_line_has_a_place_for_everybody() -> None:
    line = [waiting(str(number), tenant=f"t{number % 3}") for number in range(AHEAD + 500)]
    places = foresee(line, {}, [0.0], {"film": 1.0}, now=0.0)
    assert sorted(place.position for place in places.values()) == list(range(1, AHEAD + 501))


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
