import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa
import structlog
from structlog.testing import LogCapture

from serving import telemetry
from serving.errors import Conflict
from serving.jobs import worker as module
from serving.jobs.journal import Journal
from serving.jobs.records import JobRecord, StageState
from serving.jobs.tables import jobs, workers
from serving.jobs.types import JobState
from serving.jobs.worker import MAX_RUNS, JobWorker
from tests.serving.jobs.office import Office

StartWorker = Callable[[], Awaitable[JobWorker]]


def stage_states(record: JobRecord) -> dict[str, StageState]:
    return {stage.name: stage.state for stage in record.stages}


def waits_counted() -> float:
    """How many jobs the metrics say have waited."""
    labels = {"type": "film", "lane": "medium"}
    return telemetry.METRICS.get_sample_value("reelmesh_job_wait_seconds_count", labels) or 0.0


async def test_a_job_runs_to_its_end_and_keeps_what_each_stage_did(office: Office, start_worker: StartWorker) -> None:
    await start_worker()
    record = await office.until((await office.submit(clips=3)).id)
    assert record.state is JobState.COMPLETED
    assert record.progress == 1.0
    assert record.output is not None
    assert set(record.output.files) == {"captions", "score"}
    assert stage_states(record) == {
        "clips": StageState.DONE,
        "titles": StageState.SKIPPED,
        "score": StageState.DONE,
        "captions": StageState.DONE,
    }
    clips = record.stages[0]
    assert (clips.parts, clips.parts_done, clips.tries, clips.models) == (3, 3, 1, ["ray/fiddle"])
    assert [ref.name for ref in clips.artifacts] == ["sound-0.wav", "sound-1.wav", "sound-2.wav"]
    assert clips.started_at is not None
    assert clips.ended_at is not None
    assert clips.ended_at >= clips.started_at


async def test_the_history_is_numbered_without_gaps_and_the_bar_never_goes_back(
    office: Office, start_worker: StartWorker
) -> None:
    await start_worker()
    job_id = (await office.submit(clips=8)).id
    await office.until(job_id)
    events = await office.store.events(job_id)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    progress = [event.progress for event in events]
    assert progress == sorted(progress)
    states = [event.state for event in events if event.kind == "state"]
    assert states == [JobState.SUBMITTED, JobState.QUEUED, JobState.PROCESSING, JobState.COMPLETED]
    seen = list(dict.fromkeys(event.state for event in events))
    assert seen[2:] == [JobState.PROCESSING, JobState.RENDERING, JobState.POST_PROCESSING, JobState.COMPLETED]


async def test_a_stage_without_calls_is_skipped(office: Office, start_worker: StartWorker) -> None:
    await start_worker()
    record = await office.until((await office.submit(clips=0)).id)
    assert record.state is JobState.COMPLETED
    assert stage_states(record)["clips"] is StageState.SKIPPED


async def test_a_failure_ends_as_one_message_with_stage_cause_and_fix(
    office: Office, start_worker: StartWorker
) -> None:
    await start_worker()
    record = await office.until((await office.submit(trouble="broken")).id)
    assert record.state is JobState.FAILED
    assert str(record.error) == "score: the violin has no strings: string it"
    assert stage_states(record)["score"] is StageState.FAILED
    assert len([line for line in office.calls() if line.startswith("begin") and "score" in line]) == 1


async def test_a_retryable_error_is_tried_again_and_counted(office: Office, start_worker: StartWorker) -> None:
    await start_worker()
    record = await office.until((await office.submit(trouble="busy_once")).id)
    assert record.state is JobState.COMPLETED
    score = record.stages[2]
    assert (score.tries, score.cpu_s, score.gpu_s) == (2, 1.0, 0.5), "the failed try cost as much as the other"
    assert (record.cpu_s, record.gpu_s) == (2.5, 1.25)


async def test_tries_are_bounded(office: Office, start_worker: StartWorker) -> None:
    await start_worker()
    record = await office.until((await office.submit(trouble="busy")).id)
    assert record.state is JobState.FAILED
    assert record.error is not None
    assert record.error.retryable
    assert record.error.stage == "score"
    score = record.stages[2]
    assert (score.tries, score.cpu_s, score.gpu_s) == (2, 1.0, 0.5)
    assert (record.cpu_s, record.gpu_s) == (2.5, 1.25)


async def test_a_defect_of_a_graph_fails_its_job_and_not_the_worker(office: Office, start_worker: StartWorker) -> None:
    await start_worker()
    record = await office.until((await office.submit(trouble="defect")).id)
    assert str(record.error) == "captions: ZeroDivisionError: a defect of the graph"
    assert (await office.until((await office.submit()).id)).state is JobState.COMPLETED


async def test_a_graph_may_come_back_to_a_stage_and_its_record_tells_of_both_times(
    office: Office, start_worker: StartWorker
) -> None:
    await start_worker()
    record = await office.until((await office.submit(trouble="retake", seconds=0.2)).id)
    assert record.state is JobState.COMPLETED
    score = record.stages[2]
    assert (score.state, score.parts, score.parts_done) == (StageState.DONE, 2, 2)
    assert score.duration_s(time.time()) > 0.4


async def test_cancelling_a_working_job_stops_its_calls_within_two_seconds(
    office: Office, start_worker: StartWorker
) -> None:
    await start_worker()
    job_id = (await office.submit(seconds=30)).id
    await office.until(job_id, lambda record: record.stage == "clips")
    asked = time.monotonic()
    await office.store.cancel(job_id)
    record = await office.until(job_id)
    assert record.state is JobState.CANCELLED
    assert time.monotonic() - asked < 2
    assert len([line for line in office.calls() if line.startswith("cancel")]) == 3
    assert set(stage_states(record).values()) == {StageState.CANCELLED}
    assert (await office.until((await office.submit()).id)).state is JobState.COMPLETED


async def test_a_waiting_job_that_is_cancelled_never_starts(office: Office, start_worker: StartWorker) -> None:
    job_id = (await office.submit()).id
    assert (await office.store.cancel(job_id)).state is JobState.CANCELLED
    await start_worker()
    assert (await office.until((await office.submit()).id)).state is JobState.COMPLETED
    assert not [line for line in office.calls() if job_id in line]


async def test_a_job_that_ended_cannot_be_cancelled(office: Office, start_worker: StartWorker) -> None:
    await start_worker()
    job_id = (await office.submit()).id
    await office.until(job_id)
    with pytest.raises(Conflict, match="completed already"):
        await office.store.cancel(job_id)


async def test_urgent_lanes_go_first(office: Office, start_worker: StartWorker) -> None:
    low = await office.submit(lane="low", clips=1)
    medium = await office.submit(lane="medium", clips=1)
    critical = await office.submit(lane="critical", clips=1)
    assert [(await office.store.get(job.id)).queue_position for job in (critical, medium, low)] == [1, 2, 3]
    await start_worker()
    ended = [await office.until(job.id) for job in (low, medium, critical)]
    started = [record.started_at or 0 for record in ended]
    assert started[2] < started[1] < started[0]


async def test_a_stopped_worker_leaves_its_job_to_the_next_one(office: Office, start_worker: StartWorker) -> None:
    first = await start_worker()
    job_id = (await office.submit(clips=4, seconds=0.4)).id
    await office.until(job_id, lambda record: record.stage == "score")
    await first.shutdown()
    await start_worker()
    record = await office.until(job_id)
    assert record.state is JobState.COMPLETED
    assert record.runs == 1, "a stop on purpose does not count against the job"
    ends = [line for line in office.calls() if line.startswith("end")]
    assert len(ends) == len(set(ends)) == 5


async def test_a_jobs_wait_is_counted_once_however_often_its_worker_is_stopped(
    office: Office, start_worker: StartWorker
) -> None:
    before = waits_counted()
    first = await start_worker()
    job_id = (await office.submit(clips=4, seconds=0.4)).id
    await office.until(job_id, lambda record: record.stage == "clips")
    await first.shutdown()
    await start_worker()
    assert (await office.until(job_id)).state is JobState.COMPLETED
    assert waits_counted() == before + 1


async def test_shutting_down_twice_is_harmless(office: Office, start_worker: StartWorker) -> None:
    worker = await start_worker()
    await worker.check_health()
    assert await worker.record_autoscaling_stats() == {"running_jobs": 0.0}
    await asyncio.gather(worker.shutdown(), worker.shutdown())


async def test_a_job_that_keeps_losing_its_worker_is_given_up(office: Office, start_worker: StartWorker) -> None:
    job_id = (await office.submit()).id
    lost = sa.update(jobs).where(jobs.c.id == job_id).values(runs=MAX_RUNS, stage="clips")
    await office.database.run(lambda connection: connection.execute(lost))
    await start_worker()
    record = await office.until(job_id)
    assert record.state is JobState.FAILED
    assert "lost 5 times, last in stage clips" in str(record.error)
    assert office.calls() == []


async def test_a_job_of_a_type_that_is_gone_fails_and_says_so(office: Office, start_worker: StartWorker) -> None:
    job_id = (await office.submit()).id
    other = sa.update(jobs).where(jobs.c.id == job_id).values(type="opera")
    await office.database.run(lambda connection: connection.execute(other))
    await start_worker()
    assert "knows no job type 'opera'" in str((await office.until(job_id)).error)


async def test_input_that_no_longer_fits_its_type_fails_and_says_so(office: Office, start_worker: StartWorker) -> None:
    job_id = (await office.submit()).id
    other = sa.update(jobs).where(jobs.c.id == job_id).values(input={"title": "x", "reels": 3})
    await office.database.run(lambda connection: connection.execute(other))
    await start_worker()
    assert "input: it no longer fits film" in str((await office.until(job_id)).error)


async def test_one_process_runs_one_worker(start_worker: StartWorker) -> None:
    await start_worker()
    with pytest.raises(Conflict, match="one worker per process"):
        await start_worker()


async def test_an_end_that_cannot_be_written_is_an_end_all_the_same(
    office: Office, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Journal.finish

    async def refused(self: Journal, job_id: str, state: JobState, **how: Any) -> JobState:
        if state is JobState.COMPLETED:
            raise ValueError("the driver cannot encode it")
        return await finish(self, job_id, state, **how)

    monkeypatch.setattr(Journal, "finish", refused)
    await start_worker()
    record = await office.until((await office.submit()).id)
    assert record.state is JobState.FAILED
    assert "could not be written" in str(record.error)
    assert record.dead_at is not None


async def test_a_worker_that_was_given_up_and_lives_on_stops_what_is_no_longer_its_own_and_nothing_is_lost(
    office: Office, start_worker: StartWorker
) -> None:
    worker = await start_worker()
    job_id = (await office.submit(clips=1, seconds=30)).id
    await office.until(job_id, lambda record: record.stage == "clips")
    shorter = sa.update(jobs).where(jobs.c.id == job_id).values(input={"title": "A film", "clips": 1, "seconds": 0.1})
    await office.database.run(lambda connection: connection.execute(shorter))
    assert await Journal(office.database, "another").requeue(worker.id) == [job_id]
    record = await office.until(job_id)
    assert record.state is JobState.COMPLETED
    assert record.runs == 2
    assert len([line for line in office.calls() if line.startswith("cancel")]) == 1


async def test_the_jobs_of_a_worker_that_was_given_up_and_is_then_stopped_go_on(
    office: Office, start_worker: StartWorker
) -> None:
    first = await start_worker()
    job_id = (await office.submit(clips=1, seconds=1)).id
    await office.until(job_id, lambda record: record.stage == "clips")
    await office.database.run(lambda connection: connection.execute(sa.delete(workers)))
    await first.shutdown()
    await start_worker()
    assert (await office.until(job_id)).state is JobState.COMPLETED


async def test_a_claim_that_was_taken_back_before_it_was_started_is_run_once(
    office: Office, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await start_worker()
    start_job = worker._executor.start_job

    async def late(job_id: str) -> bool:
        monkeypatch.setattr(worker._executor, "start_job", start_job)
        assert await Journal(office.database, "another").requeue(worker.id) == [job_id]
        return await start_job(job_id)

    monkeypatch.setattr(worker._executor, "start_job", late)
    record = await office.until((await office.submit(clips=1, seconds=0.1)).id)
    assert record.state is JobState.COMPLETED
    ends = [line for line in office.calls() if line.startswith("end")]
    assert len(ends) == len(set(ends)) == 2


async def test_a_resumed_job_goes_on_at_once_while_new_ones_wait_for_a_slot(
    office: Office, start_worker: StartWorker
) -> None:
    first = await start_worker()
    lost = (await office.submit(clips=1, seconds=3)).id
    await office.until(lost, lambda record: record.stage == "clips")
    await first.shutdown()
    long, waiting = (await office.submit(clips=1, seconds=3)).id, (await office.submit(clips=1)).id
    await start_worker()
    await office.until(long, lambda record: record.stage == "clips")
    await office.until(lost, lambda record: record.runs == 1 and record.state is not JobState.QUEUED)
    assert (await office.store.get(long)).stage == "clips", "both run, though one may"
    assert (await office.store.get(waiting)).state is JobState.QUEUED
    ended = [await office.until(job_id) for job_id in (lost, long, waiting)]
    assert {record.state for record in ended} == {JobState.COMPLETED}


async def test_a_job_that_was_stopped_for_longer_than_its_time_limit_goes_on(
    office: Office, start_worker: StartWorker
) -> None:
    first = await start_worker()
    job_id = (await office.submit(clips=1, seconds=1, timeout_s=3)).id
    await office.until(job_id, lambda record: record.stage == "clips")
    await first.shutdown()
    overnight = sa.update(jobs).where(jobs.c.id == job_id).values(started_at=time.time() - 40_000)
    await office.database.run(lambda connection: connection.execute(overnight))
    await start_worker()
    assert (await office.until(job_id)).state is JobState.COMPLETED


async def test_a_database_that_is_away_is_logged_in_single_lines_with_growing_pauses(
    office: Office, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, told = await start_worker(), LogCapture()
    monkeypatch.setattr(module, "log", structlog.wrap_logger(None, processors=[told]))

    def away(_: object) -> None:
        raise sa.exc.OperationalError("SELECT 1", {}, OSError("the server is on holiday"))

    with monkeypatch.context() as outage:
        outage.setattr(worker._database, "_run", away)
        await asyncio.sleep(1.5)
    lines = [line for line in told.entries if line["event"] == "claim_failed"]
    assert 2 <= len(lines) <= 6
    assert "on holiday" in lines[0]["error"]
    assert not [line for line in told.entries if line.get("exc_info")]
    assert (await office.until((await office.submit()).id)).state is JobState.COMPLETED


async def test_a_claim_whose_answer_was_lost_goes_back_into_the_line(
    office: Office, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await start_worker()
    claim = worker._line.claim

    async def unanswered() -> None:
        if await claim() is not None:
            monkeypatch.setattr(worker._line, "claim", claim)
            raise sa.exc.OperationalError("COMMIT", {}, OSError("the connection is gone"))

    monkeypatch.setattr(worker._line, "claim", unanswered)
    record = await office.until((await office.submit()).id)
    assert record.state is JobState.COMPLETED
    assert record.runs == 1
