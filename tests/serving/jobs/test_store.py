import time

import pytest

from serving.errors import BadInput, NotFound
from serving.jobs.acceptance import new_job_id
from serving.jobs.types import JobState, Lane
from tests.serving.jobs.office import Office


def test_ids_sort_by_time() -> None:
    now = time.time()
    ids = [new_job_id(now + step) for step in range(5)]
    assert ids == sorted(ids)
    assert len({new_job_id(now) for _ in range(100)}) == 100


async def test_pages_go_from_new_to_old_and_miss_nothing(office: Office) -> None:
    made = [(await office.submit(title=f"Film {index}")).id for index in range(7)]
    found: list[str] = []
    cursor = None
    while True:
        page = await office.store.page(limit=3, cursor=cursor)
        found += [job.id for job in page.jobs]
        if (cursor := page.next_cursor) is None:
            break
    assert sorted(found) == sorted(made)
    assert found == sorted(found, reverse=True)


async def test_pages_can_be_filtered(office: Office) -> None:
    low = await office.submit(lane="low")
    gone = await office.submit()
    await office.store.cancel(gone.id)
    assert [job.id for job in (await office.store.page(lane=Lane.LOW)).jobs] == [low.id]
    assert [job.id for job in (await office.store.page(states=[JobState.CANCELLED])).jobs] == [gone.id]
    assert (await office.store.page(type_name="podcast")).jobs == []
    assert await office.store.counts() == {
        ("film", JobState.QUEUED, Lane.LOW): 1,
        ("film", JobState.CANCELLED, Lane.MEDIUM): 1,
    }


async def test_a_listing_does_not_carry_inputs(office: Office) -> None:
    await office.submit(actors=["x" * 1000])
    [job] = (await office.store.page()).jobs
    assert job.input == {}
    assert job.title == "A film"


async def test_unknown_jobs_and_strange_cursors_are_told(office: Office) -> None:
    with pytest.raises(NotFound, match="no job is called 'nope'"):
        await office.store.get("nope")
    with pytest.raises(NotFound):
        await office.store.cancel("nope")
    with pytest.raises(BadInput, match="none of ours"):
        await office.store.page(cursor="x" * 41)


async def test_events_can_be_read_from_anywhere(office: Office) -> None:
    job = await office.submit()
    assert [event.state for event in await office.store.events(job.id)] == [JobState.SUBMITTED, JobState.QUEUED]
    assert [event.seq for event in await office.store.events(job.id, after=1)] == [2]
    assert await office.store.events(job.id, after=99) == []
    assert await office.store.last_events([job.id, "nope"]) == {job.id: 2}
