"""Kills real worker processes with SIGKILL and counts what they did."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving.jobs.types import JobState
from tests.serving.jobs.office import Office

Spawn = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def spawn_worker(office: Office) -> Iterator[Spawn]:
    children: list[subprocess.Popen[str]] = []

    def spawn() -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "tests.serving.jobs.worker_process", str(office.settings.home)]
        root = Path(__file__).parents[3]
        child = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        children.append(child)
        assert child.stdout is not None
        while line := child.stdout.readline():
            if line.strip() == "ready":
                return child
        raise AssertionError("the worker did not start")

    yield spawn
    for child in children:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


async def test_a_killed_workers_job_resumes_at_its_first_unfinished_call(office: Office, spawn_worker: Spawn) -> None:
    worker = spawn_worker()
    job_id = (await office.submit(clips=6, seconds=0.5)).id
    await office.until(job_id, lambda record: record.stages[0].parts_done >= 4)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    assert (await office.store.get(job_id)).state is JobState.PROCESSING

    started = time.monotonic()
    spawn_worker()
    record = await office.until(job_id, timeout_s=30)
    assert record.state is JobState.COMPLETED
    assert record.runs == 2
    assert time.monotonic() - started < 15
    ends = [line for line in office.calls() if line.startswith("end")]
    assert sorted(line.split()[-1] for line in ends) == ["0", "1", "1000", "2", "3", "4", "5"]
    reasons = [event.reason for event in await office.store.events(job_id) if event.reason]
    assert reasons == ["its worker was lost", "resumed at the first unfinished stage"]
    progress = [event.progress for event in await office.store.events(job_id)]
    assert progress == sorted(progress)


async def test_a_living_worker_takes_over_from_a_dead_one(office: Office, spawn_worker: Spawn) -> None:
    first, second = spawn_worker(), spawn_worker()
    jobs = [await office.submit(clips=4, seconds=0.5) for _ in range(2)]
    for job in jobs:
        await office.until(job.id, lambda record: record.stage is not None)
    os.kill(first.pid, signal.SIGKILL)
    killed = time.monotonic()
    records = [await office.until(job.id, timeout_s=30) for job in jobs]
    assert time.monotonic() - killed < 15
    assert [record.state for record in records] == [JobState.COMPLETED, JobState.COMPLETED]
    assert sum(record.runs for record in records) == 3
    assert second.poll() is None
