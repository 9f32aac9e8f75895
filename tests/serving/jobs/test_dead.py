import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
import sqlalchemy as sa

from serving.errors import Conflict, EngineFailed, OutOfMemory, ReelmeshError, Unavailable
from serving.jobs.dead import WorkersLost, is_dead_end, is_dead_letter, redrive
from serving.jobs.tables import jobs
from serving.jobs.types import JobState
from serving.jobs.worker import MAX_RUNS, JobWorker
from tests.serving.jobs.office import Office

StartWorker = Callable[[], Awaitable[JobWorker]]


async def dead_letters(office: Office) -> list[str]:
    query = sa.select(jobs.c.id).where(is_dead_letter())
    return list(await office.database.run(lambda connection: connection.scalars(query).all()))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(Unavailable("busy"), True, id="tries used up"),
        pytest.param(OutOfMemory("full"), True, id="no memory, however often"),
        pytest.param(WorkersLost("gone"), True, id="workers used up"),
        pytest.param(EngineFailed("broken"), False, id="the same every time"),
    ],
)
def test_what_another_time_may_mend_is_a_dead_end(error: ReelmeshError, expected: bool) -> None:
    assert is_dead_end(error) is expected


async def test_a_job_whose_tries_are_used_up_is_a_dead_letter_and_says_what_to_do(
    office: Office, start_worker: StartWorker
) -> None:
    await start_worker()
    busy = await office.until((await office.submit(trouble="busy")).id)
    broken = await office.until((await office.submit(trouble="broken")).id)
    assert busy.dead_at == busy.finished_at
    assert str(busy.error) == (
        "score: the orchestra is on tour: mend the cause, then re-drive it: `reelmesh jobs dead` shows the job"
    )
    assert broken.dead_at is None
    assert await dead_letters(office) == [busy.id]


async def test_a_job_whose_workers_are_used_up_is_a_dead_letter(office: Office, start_worker: StartWorker) -> None:
    job_id = (await office.submit()).id
    lost = sa.update(jobs).where(jobs.c.id == job_id).values(runs=MAX_RUNS, stage="clips")
    await office.database.run(lambda connection: connection.execute(lost))
    await start_worker()
    record = await office.until(job_id)
    assert record.error is not None
    assert record.error.stage == "clips"
    assert await dead_letters(office) == [job_id]


async def test_a_redrive_takes_what_was_finished_and_stands_for_the_old_letter(
    office: Office, start_worker: StartWorker
) -> None:
    await start_worker()
    record = await office.until((await office.submit(trouble="busy")).id)
    again = await office.until((await redrive(record, office.desk)).id)
    assert again.parent_id == record.id
    assert [line for line in office.calls() if again.id in line and " clips " in line] == []
    assert await dead_letters(office) == [again.id]


async def test_only_a_dead_letter_is_redriven(office: Office, start_worker: StartWorker) -> None:
    await start_worker()
    record = await office.until((await office.submit(trouble="broken")).id)
    assert record.state is JobState.FAILED
    with pytest.raises(Conflict, match=r"no dead letter: .*reelmesh jobs retry"):
        await redrive(record, office.desk)


async def test_a_dead_letter_is_redriven_once_also_by_two_at_the_same_moment(office: Office) -> None:
    job_id = (await office.submit()).id
    ended = {"state": JobState.FAILED, "finished_at": time.time(), "dead_at": time.time()}
    await office.database.run(lambda connection: connection.execute(sa.update(jobs).values(**ended)))
    record = await office.store.get(job_id)
    answers = await asyncio.gather(*(redrive(record, office.desk) for _ in range(3)), return_exceptions=True)
    [made] = [answer for answer in answers if not isinstance(answer, BaseException)]
    refused = [answer for answer in answers if isinstance(answer, Conflict)]
    assert len(refused) == 2
    with pytest.raises(Conflict, match=f"the job {made.id} goes on with it already"):
        await redrive(record, office.desk)
    assert len((await office.store.page(parent_id=job_id)).jobs) == 1
