import time
from collections.abc import Awaitable, Callable

import pytest

from serving.jobs.records import JobRecord
from serving.jobs.run import end_of
from serving.jobs.types import JobState, Lane
from serving.jobs.worker import JobWorker
from tests.serving.jobs.office import Office

StartWorker = Callable[[], Awaitable[JobWorker]]


@pytest.mark.parametrize(
    ("deadline_at", "expected"),
    [
        pytest.param(None, 1060.0, id="all of its time, however long ago it started first"),
        pytest.param(1030.0, 1030.0, id="its deadline stays"),
        pytest.param(2000.0, 1060.0, id="a late deadline"),
    ],
)
def test_each_run_of_a_job_has_all_of_its_time_up_to_the_deadline(deadline_at: float | None, expected: float) -> None:
    times = {"created_at": 1.0, "started_at": 2.0, "taken_at": 1000.0, "timeout_s": 60.0, "deadline_at": deadline_at}
    states = {"id": "1", "type": "film", "state": JobState.PROCESSING, "lane": Lane.LOW, "progress": 0.0, "tries": 1}
    assert end_of(JobRecord.model_validate(times | states)) == expected


async def test_a_cancel_that_nobody_asked_for_fails_the_job_instead_of_losing_it(
    office: Office, start_worker: StartWorker
) -> None:
    await start_worker()
    record = await office.until((await office.submit(trouble="stray_cancel")).id)
    assert "cancelled from within" in str(record.error)


async def test_a_graph_that_is_deaf_to_cancels_does_not_hold_its_job(office: Office, start_worker: StartWorker) -> None:
    await start_worker()
    job_id = (await office.submit(trouble="deaf")).id
    await office.until(job_id, lambda record: record.stage == "score" and record.progress > 0.5)
    asked = time.monotonic()
    await office.store.cancel(job_id)
    assert (await office.until(job_id)).state is JobState.CANCELLED
    assert time.monotonic() - asked < 2


async def test_a_job_over_its_time_limit_fails_and_says_how_to_get_more(
    office: Office, start_worker: StartWorker
) -> None:
    await start_worker()
    started = time.monotonic()
    record = await office.until((await office.submit(seconds=30, timeout_s=0.5)).id)
    assert time.monotonic() - started < 3
    assert record.state is JobState.FAILED
    assert record.error is not None
    assert record.error.code == "deadline_exceeded"
    assert "timeout_s" in str(record.error)


async def test_a_number_that_json_does_not_have_fails_the_job_and_says_where(
    office: Office, start_worker: StartWorker
) -> None:
    await start_worker()
    record = await office.until((await office.submit(trouble="nan")).id)
    assert record.state is JobState.FAILED
    assert str(record.error) == "facts.sound.0.loudness_lufs: the graph returned a number that JSON does not have"


async def test_a_call_that_tells_how_far_it_is_moves_its_jobs_bar(office: Office, start_worker: StartWorker) -> None:
    await start_worker()
    job = await office.until((await office.submit(clips=0, seconds=0.8, trouble="tells")).id)
    assert job.state is JobState.COMPLETED
    bar = [event.progress for event in await office.store.events(job.id)]
    assert bar == sorted(bar)
    silent = await office.until((await office.submit(clips=0, seconds=0.8)).id)
    assert len(bar) >= len(await office.store.events(silent.id)) + 3
