"""Executor: DBOS in this process (queue, recovery, checkpoints); started and stopped by the worker.

The one invariant: DBOS is one per process, so at most one executor runs in a process at a time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from dbos import DBOS
from dbos._recovery import recover_pending_workflows

from serving.errors import Conflict
from serving.jobs.database import Database
from serving.jobs.queue import APPLICATION, APPLICATION_VERSION, WORKFLOW, JobQueue

RunJob = Callable[[str], Awaitable[str]]

_running: dict[str, RunJob] = {}
"""The workflow's body while an executor runs; DBOS wants workflows registered once per process, by name."""
_KEY: Final = "run"


@DBOS.workflow(name=WORKFLOW)
async def run_job(job_id: str) -> str:
    """One job; DBOS calls it when the job's turn has come, and again after a crash."""
    return await _running[_KEY](job_id)


class Executor:
    """Runs jobs from the queue.

    Args:
        database: opened, with its tables made.
        worker: this worker's id, which no other worker ever has.
        run: the body of the workflow; it returns what DBOS records as the end, and raises only when it is
            stopped.
        concurrent_jobs: most jobs at a time.
        poll_s: how often the queue is looked at.
    """

    def __init__(self, database: Database, worker: str, run: RunJob, *, concurrent_jobs: int, poll_s: float) -> None:
        self._database = database
        self._queue = JobQueue(database)
        self._worker = worker
        self._run = run
        self._concurrent_jobs = concurrent_jobs
        self._poll_s = poll_s

    async def start(self) -> None:
        """Launch DBOS on the running loop, so that workflows run beside whatever else lives on it."""
        if _running:
            raise Conflict("this process runs a worker already", fix="start one worker per process")
        _running[_KEY] = self._run
        self._dbos = DBOS(
            config={
                "name": APPLICATION,
                "system_database_url": self._database.dbos_url,
                "application_version": APPLICATION_VERSION,
                "executor_id": self._worker,
                "log_level": "WARNING",
                "run_migrations": False,
            }
        )
        # Before the launch: DBOS looks for new queues once a second, and the first job should not wait for that.
        await self._queue.register(worker_concurrency=self._concurrent_jobs, poll_s=self._poll_s)
        DBOS.launch()

    async def take_over(self, worker: str) -> None:
        """Put a dead worker's started jobs back into the queue; safe when several workers do it at once."""
        await asyncio.to_thread(recover_pending_workflows, self._dbos, [worker])

    async def stop(self) -> None:
        """Stop taking jobs; workflows that the worker cancelled stay unfinished for DBOS."""
        await asyncio.to_thread(DBOS.destroy)
        # DBOS had made its own threads the loop's default and has just ended them.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
        await self._queue.close()
        _running.clear()
