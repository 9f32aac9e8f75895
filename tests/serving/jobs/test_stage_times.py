"""Whether a stage still fits, by what earlier jobs took."""

import time
from collections.abc import Awaitable, Callable

import pytest
import sqlalchemy as sa

from serving.errors import DeadlineExceeded
from serving.jobs.records import StageState
from serving.jobs.stage_times import StageTimes, check_fits
from serving.jobs.tables import job_stages, jobs
from serving.jobs.types import JobState
from serving.jobs.worker import JobWorker
from tests.serving.jobs.office import Office

StartWorker = Callable[[], Awaitable[JobWorker]]


async def ran(office: Office, seconds: float, parts: int, cached: int = 0) -> None:
    job_id = (await office.submit()).id
    values = {"state": StageState.DONE, "started_at": 100.0, "ended_at": 100.0 + seconds, "parts": parts}
    here = sa.update(job_stages).where(job_stages.c.job_id == job_id, job_stages.c.name == "score")
    await office.database.run(lambda connection: connection.execute(here.values(**values, parts_cached=cached)))
    await office.store.cancel(job_id)
    ended = sa.update(job_stages).where(job_stages.c.job_id == job_id, job_stages.c.name == "score")
    await office.database.run(lambda connection: connection.execute(ended.values(state=StageState.DONE)))


async def test_the_median_of_what_was_measured_scales_with_the_calls(office: Office) -> None:
    times = StageTimes(office.database)
    assert await times.expected_s("film", "score", 1) is None
    for seconds, parts in ((2.0, 1), (40.0, 10), (90.0, 1)):
        await ran(office, seconds, parts)
    await ran(office, 0.001, 1, cached=1)
    assert await times.expected_s("film", "score", 1) == pytest.approx(4.0)
    assert await times.expected_s("film", "score", 3) == pytest.approx(12.0)
    assert await times.expected_s("film", "clips", 3) is None


def test_a_stage_that_no_longer_fits_says_what_it_takes_and_what_is_left() -> None:
    check_fits("score", None, 0.1)
    check_fits("score", 5.0, 5.1)
    with pytest.raises(DeadlineExceeded, match=r"score takes about 5\.0 s and 2\.0 s are left"):
        check_fits("score", 5.0, 2.0)
    with pytest.raises(DeadlineExceeded, match=r"passed 3\.0 s before score could start"):
        check_fits("score", None, -3.0)


async def test_no_stage_starts_that_would_end_after_the_deadline(office: Office, start_worker: StartWorker) -> None:
    await ran(office, 60.0, 1)
    job_id = (await office.submit(clips=1)).id
    changed = sa.update(jobs).where(jobs.c.id == job_id).values(deadline_at=time.time() + 30)
    await office.database.run(lambda connection: connection.execute(changed))
    await start_worker()
    record = await office.until(job_id)
    assert record.state is JobState.FAILED
    assert record.error is not None
    assert (record.error.code, record.error.stage) == ("deadline_exceeded", "score")
    assert "takes about 60.0 s" in str(record.error)
    assert [line.split()[2] for line in office.calls() if line.startswith("begin")] == ["clips"]
