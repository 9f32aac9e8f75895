import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from serving import telemetry
from serving.errors import ReelmeshError
from serving.jobs.intake.base import Delivery
from serving.jobs.intake.replies import HeldReplies, StoredReplies
from serving.jobs.intake.runner import Intake
from serving.jobs.types import JobState
from serving.jobs.worker import JobWorker
from tests.serving.jobs.intake.memory import MemoryQueue
from tests.serving.jobs.office import Office, open_office

NAME = "redis:films"


def film(message: str, **input_: object) -> Delivery:
    body = {"type": "film", "input": {"title": message, "clips": 1, **input_}}
    return Delivery(message, json.dumps(body).encode(), reply={"to": "answers"})


@asynccontextmanager
async def running(office: Office, queue: MemoryQueue, prefetch: int = 4) -> AsyncIterator[Intake]:
    replies = HeldReplies(office.store) if queue.holds else StoredReplies(office.database, NAME, claim_s=1)
    intake = Intake(
        queue, office.desk, office.store, replies, name=NAME, tenant="studio", prefetch=prefetch,
        most_bytes=10_000, poll_s=0.02, first_pause_s=0.02,
    )  # fmt: skip
    intake.start()
    try:
        yield intake
    finally:
        await intake.stop()


async def until(done: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not done():  # noqa: ASYNC110  what is waited for tells nobody
            await asyncio.sleep(0.01)


async def test_a_message_becomes_one_job_of_its_tenant_and_is_acknowledged(office: Office) -> None:
    queue = MemoryQueue()
    async with running(office, queue):
        queue.lines.put_nowait(film("a"))
        await until(lambda: queue.acked)
    [job] = (await office.store.page()).jobs
    assert (job.title, job.state) == ("a", JobState.QUEUED)
    assert queue.released == []


async def test_a_message_delivered_twice_is_one_job_and_acknowledged_twice(office: Office) -> None:
    queue = MemoryQueue()
    async with running(office, queue):
        for _ in range(6):
            queue.lines.put_nowait(film("a"))
        await until(lambda: len(queue.acked) == 6)
    assert len((await office.store.page()).jobs) == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b"nonsense", "body", id="no JSON"),
        pytest.param(b'{"type": "opera", "input": {}}', "opera", id="unknown type"),
        pytest.param(b'{"type": "film", "input": {"title": ""}}', "title", id="bad input"),
        pytest.param(
            b'{"type": "film", "input": {"title": "x", "actors": ["nobody"]}}', "nobody", id="refused by check"
        ),
        pytest.param(b'{"type": "film", "input": {"title": "a\\u0000b"}}', "NUL", id="a NUL"),
        pytest.param(b" " * 10_001, "10000", id="too large"),
    ],
)
async def test_a_malformed_message_is_a_dead_letter_with_the_reason(office: Office, body: bytes, reason: str) -> None:
    queue = MemoryQueue()
    async with running(office, queue):
        queue.lines.put_nowait(Delivery("a", body))
        queue.lines.put_nowait(film("b"))
        await until(lambda: queue.rejected and queue.acked)
    assert reason in queue.rejected["a"]
    assert queue.acked == ["b"]


async def test_results_and_progress_come_back(office: Office, start_worker: Callable[[], Awaitable[JobWorker]]) -> None:
    queue = MemoryQueue()
    await start_worker()
    async with running(office, queue):
        queue.lines.put_nowait(film("good", clips=3, seconds=0.1))
        queue.lines.put_nowait(film("bad", trouble="broken"))
        await until(lambda: len(queue.results) == 2)
    ends = {record.title: record for record in queue.results}
    assert ends["good"].state is JobState.COMPLETED
    assert ends["bad"].error is not None
    progress = [event.progress for event in queue.progressed if event.job_id == ends["good"].id]
    assert progress == sorted(progress)
    assert any(0 < value < 1 for value in progress)


async def test_a_result_owed_by_a_process_that_died_is_paid_by_the_next(
    office: Office, start_worker: Callable[[], Awaitable[JobWorker]]
) -> None:
    first, second = MemoryQueue(), MemoryQueue()
    async with running(office, first):
        first.lines.put_nowait(film("a"))
        await until(lambda: first.acked)
    await start_worker()
    async with running(office, second):
        await until(lambda: second.results)
    assert [record.title for record in second.results] == ["a"]
    assert first.results == []


async def test_an_answer_the_broker_did_not_take_is_sent_again(office: Office) -> None:
    queue = MemoryQueue(refuse_results=1)
    async with running(office, queue):
        queue.lines.put_nowait(film("a"))
        await until(lambda: queue.acked)
        [job] = (await office.store.page()).jobs
        await office.store.cancel(job.id)
        await until(lambda: queue.results)
    assert [record.state for record in queue.results] == [JobState.CANCELLED]


async def test_a_full_mesh_leaves_messages_with_the_broker(tmp_path: Path) -> None:
    async with open_office(tmp_path / "small", limits={"queued_jobs": 2}) as office:
        queue = MemoryQueue()
        async with running(office, queue, prefetch=3):
            for number in range(9):
                queue.lines.put_nowait(film(str(number)))
            await until(lambda: queue.extended and queue.taken == len(queue.acked) + 3)
            await asyncio.sleep(0.2)
            accepted = len(queue.acked)
            # Messages that come at once may pass the bound together, so that it is not held to the last one.
            assert (accepted < 6, queue.taken, queue.rejected) == (True, accepted + 3, {})
            for job in (await office.store.page()).jobs:
                await office.store.cancel(job.id)
            await until(lambda: len(queue.acked) > accepted)
        assert not set(queue.released) & set(queue.acked)
        assert len({*queue.released, *queue.acked}) == queue.taken


async def test_a_broker_that_is_away_is_waited_for(office: Office) -> None:
    queue = MemoryQueue(away=2)
    async with running(office, queue) as intake:
        queue.lines.put_nowait(film("a"))
        queue.lines.put_nowait(ConnectionResetError("gone"))
        queue.lines.put_nowait(film("b"))
        await until(lambda: len(set(queue.acked)) == 2 or (queue.opened == 4 and "b" in queue.acked))
        intake.check()
        assert telemetry.METRICS.get_sample_value("reelmesh_intake_connected", {"intake": NAME}) == 1
    assert queue.opened == 4
    assert telemetry.METRICS.get_sample_value("reelmesh_intake_connected", {"intake": NAME}) == 0


async def test_a_source_that_holds_keeps_at_most_the_prefetch_until_jobs_end(office: Office) -> None:
    queue = MemoryQueue(holds=True)
    async with running(office, queue, prefetch=2):
        for number in range(3):
            queue.lines.put_nowait(film(str(number)))
        await until(lambda: len(queue.acked) == 2)
        await asyncio.sleep(0.1)
        assert queue.taken == 2
        for job in (await office.store.page()).jobs:
            await office.store.cancel(job.id)
        await until(lambda: len(queue.acked) == 3)
        await until(lambda: len(queue.results) == 2)  # the third is taken once one of the two has ended
    assert queue.released == ["2"]


async def test_an_intake_that_ended_by_itself_is_told(office: Office) -> None:
    async with running(office, MemoryQueue()) as intake:
        intake.check()
        assert intake._task is not None
        intake._task.cancel()
        await asyncio.wait({intake._task})
        with pytest.raises(ReelmeshError, match="redis:films"):
            intake.check()
