"""What a worker writes about its jobs on both databases, and what it may no longer write once a job is another's."""

import time
from typing import Any

import pytest
import sqlalchemy as sa

from serving.jobs import journal as module
from serving.jobs.acceptance import NewJob
from serving.jobs.database import Database
from serving.jobs.journal import Journal, RunLost, StageFacts
from serving.jobs.line import Line, take_up
from serving.jobs.queue import Workflow
from serving.jobs.reading import read_job
from serving.jobs.records import JobError, JobRecord, StageState
from serving.jobs.store import JobStore
from serving.jobs.tables import change_job, jobs
from serving.jobs.types import JobOutput, JobState, Lane


async def claimed(database: Database, worker: str = "w1") -> str:
    """A job that the worker has claimed."""
    new = NewJob(
        type="film",
        input={},
        lane=Lane.MEDIUM,
        timeout_s=60,
        tries=1,
        stages=["clips", "score"],
        request_sha256="0" * 64,
    )
    await JobStore(database, queued_jobs=100).accept(new)
    record = await Line(database, worker).claim()
    assert record is not None
    return record.id


async def job(database: Database, job_id: str) -> JobRecord:
    return await database.run(lambda connection: read_job(connection, job_id))


async def owner(database: Database, job_id: str) -> str | None:
    query = sa.select(jobs.c.worker).where(jobs.c.id == job_id)
    return await database.run(lambda connection: connection.scalar(query))


def answers(monkeypatch: pytest.MonkeyPatch, workflow: Workflow) -> None:
    """Let the executor have that of every job."""
    monkeypatch.setattr(module, "workflows", lambda _, found: dict.fromkeys(found, workflow))


async def test_a_worker_that_lost_a_job_writes_nothing_about_it(database: Database) -> None:
    job_id = await claimed(database)
    old, facts = Journal(database, "w1"), StageFacts()
    facts.parts, facts.parts_done = 2, 1
    await old.stage_started(job_id, "clips", JobState.PROCESSING, facts)
    assert await old.owned() == {job_id}
    assert await Journal(database, "w2").begin(job_id) is not None
    before = await job(database, job_id)
    assert await old.owned() == set()
    await old.stage_advanced(job_id, "clips", facts, progress=None)
    for write in (
        old.stage_started(job_id, "score", JobState.RENDERING, facts),
        old.stage_advanced(job_id, "clips", facts, progress=0.5),
        old.stage_ended(job_id, "clips", StageState.DONE, facts, progress=0.5),
        old.finish(job_id, JobState.FAILED),
    ):
        with pytest.raises(RunLost):
            await write
    assert await job(database, job_id) == before


async def test_an_end_that_is_written_twice_since_its_answer_was_lost_is_one(database: Database) -> None:
    job_id, own = await claimed(database), Journal(database, "w1")
    for _ in range(2):
        assert await own.finish(job_id, JobState.COMPLETED, output=JobOutput(files={})) is JobState.COMPLETED
    assert (await job(database, job_id)).last_event == 4


async def test_a_survivor_that_comes_late_leaves_a_lost_job_to_the_one_that_has_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await claimed(database, "lost")

    def slow(_: sa.Connection, found: list[str]) -> dict[str, Workflow]:
        with database.engine.begin() as other:
            back: dict[str, Any] = {"state": JobState.QUEUED, "worker": None}
            change_job(other, job_id, kind="state", among=JobState, values=back)
            take_up(other, job_id, "first")
        return dict.fromkeys(found, Workflow.OPEN)

    monkeypatch.setattr(module, "workflows", slow)
    await Journal(database, "second").requeue("lost")
    assert await owner(database, job_id) == "first"
    assert (await job(database, job_id)).state is JobState.PROCESSING


async def test_a_lost_job_waits_for_the_executor_or_in_line_or_is_given_up_as_the_executor_has_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for workflow in Workflow:
        job_id = await claimed(database, "lost")
        answers(monkeypatch, workflow)
        await Journal(database, "w2").requeue("lost")
        found[workflow] = await job(database, job_id)
    assert (found[Workflow.OPEN].state, found[Workflow.OPEN].started_at is None) == (JobState.QUEUED, False)
    assert (found[Workflow.NONE].state, found[Workflow.NONE].started_at) == (JobState.QUEUED, None)
    ended = found[Workflow.ENDED]
    assert (ended.state, ended.dead_at) == (JobState.FAILED, ended.finished_at)
    assert "could not be written" in str(ended.error)


@pytest.mark.parametrize("workflow", list(Workflow), ids=str)
async def test_what_waits_to_be_resumed_and_is_resumed_by_nobody_is_settled(
    database: Database, monkeypatch: pytest.MonkeyPatch, workflow: Workflow
) -> None:
    job_id, own = await claimed(database, "lost"), Journal(database, "w2")
    answers(monkeypatch, Workflow.OPEN)
    await own.requeue("lost")
    answers(monkeypatch, workflow)
    assert await own.settle_strays() == ([] if workflow is Workflow.OPEN else [job_id])
    again = await Line(database, "w2").claim()
    assert (again is not None) is (workflow is Workflow.NONE)
    assert (await job(database, job_id)).is_final is (workflow is Workflow.ENDED)


async def test_a_text_that_holds_control_characters_is_kept_without_them(database: Database) -> None:
    job_id = await claimed(database)
    told = JobError(code="engine_failed", message="ffmpeg said \x00\x1b[31mno\ud800")
    await Journal(database, "w1").finish(job_id, JobState.FAILED, error=told)
    [*_, last] = await JobStore(database, queued_jobs=1).events(job_id)
    assert last.reason == "ffmpeg said [31mno"


async def test_only_allowed_steps_are_taken_whatever_is_asked(database: Database) -> None:
    job_id = await claimed(database)

    def step(connection: sa.Connection, state: JobState) -> bool:
        return change_job(connection, job_id, kind="state", among=JobState, values={"state": state})

    asked = [JobState.RENDERING, JobState.PROCESSING, JobState.SUBMITTED, JobState.COMPLETED, JobState.QUEUED]
    taken = [await database.run(lambda connection, state=state: step(connection, state)) for state in asked]
    assert taken == [True, False, False, True, False]


async def test_a_run_that_is_resumed_has_all_of_its_time_again(database: Database) -> None:
    job_id = await claimed(database)
    long_ago = {"started_at": time.time() - 86_400, "taken_at": time.time() - 86_400}
    await database.run(lambda connection: connection.execute(sa.update(jobs).values(**long_ago)))
    record = await Journal(database, "w2").begin(job_id)
    assert record is not None
    assert record.started_at == long_ago["started_at"]
    assert record.taken_at == pytest.approx(time.time(), abs=10)
