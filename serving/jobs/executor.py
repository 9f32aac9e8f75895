"""Executor: DBOS in this process (checkpoints, recovery); started and stopped by the worker.

The one invariant: DBOS is one per process, so at most one executor runs in a process at a time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from dbos import DBOS, SetWorkflowID
from dbos._core import WorkflowHandleAsyncTask
from dbos._shard_keys import bind_shard_keys

from serving.errors import Conflict
from serving.jobs.database import Database
from serving.jobs.queue import APPLICATION, APPLICATION_VERSION, QUEUE, WORKFLOW

RunJob = Callable[[str], Awaitable[str]]

_running: dict[str, RunJob] = {}
"""The workflow's body while an executor runs; DBOS wants workflows registered once per process, by name."""
_KEY: Final = "run"
_QUEUE_POLL_S: Final = 0.5
"""How often DBOS's queue is looked at: jobs of lost workers come through it, and nothing else."""

_AT_A_TIME: Final = 64
"""Most jobs that DBOS brings back to one worker at a time; they wait for none of its own."""


@DBOS.workflow(name=WORKFLOW)
async def run_job(job_id: str) -> str:
    """One job; started by :meth:`Executor.start_job`, and again by DBOS after a crash."""
    return await _running[_KEY](job_id)


class Executor:
    """Runs jobs.

    Args:
        database: opened, with its tables made.
        worker: this worker's id, which no other worker ever has.
        run: the body of the workflow; it returns what DBOS records as the end, and raises only when it is
            stopped.
    """

    def __init__(self, database: Database, worker: str, run: RunJob) -> None:
        self._database = database
        self._worker = worker
        self._run = run

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
        DBOS.launch()
        await DBOS.register_queue_async(
            QUEUE,
            worker_concurrency=_AT_A_TIME,
            polling_interval_sec=_QUEUE_POLL_S,
            on_conflict="always_update",
        )

    async def start_job(self, job_id: str) -> bool:
        """Start a claimed job in this process.

        Returns:
            False when DBOS holds the job already: then it calls the job by itself, here or elsewhere.
        """
        with SetWorkflowID(job_id):
            handle = await DBOS.start_workflow_async(run_job, job_id)
        return isinstance(handle, WorkflowHandleAsyncTask)

    async def take_over(self, worker: str) -> None:
        """Put a dead worker's started jobs into DBOS's queue; safe when several workers do it at once."""
        await asyncio.to_thread(self._take_over, worker)

    async def hand_back(self, job_id: str) -> None:
        """Put one of this worker's own started jobs there; does nothing when another worker has it by now."""
        await asyncio.to_thread(self._take_over, self._worker, job_id)

    def _take_over(self, worker: str, job_id: str | None = None) -> None:
        # As DBOS's recover_pending_workflows, but into our queue: its own one has no bound on jobs at a time.
        system = self._dbos._sys_db
        for workflow in system.get_pending_workflows(worker, APPLICATION_VERSION):
            if job_id in (None, workflow.workflow_id):
                with bind_shard_keys({workflow.workflow_id: workflow.shard_key}):
                    system.reenqueue_for_recovery(workflow.workflow_id, [worker], QUEUE)

    async def stop(self) -> None:
        """Stop taking jobs; workflows that the worker cancelled stay unfinished for DBOS."""
        await asyncio.to_thread(DBOS.destroy)
        # DBOS had made its own threads the loop's default and has just ended them.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
        _running.clear()
