"""JobQueue: puts jobs into DBOS's queue and takes them out again; used where jobs are accepted and cancelled.

The one invariant: enqueueing happens inside the transaction that writes the job's row.
"""

import asyncio
from typing import Final

import sqlalchemy as sa

from serving.jobs.database import Database
from serving.jobs.states import priority_of
from serving.jobs.types import Lane

APPLICATION: Final = "reelmesh"
APPLICATION_VERSION: Final = "jobs-1"
"""Raised by hand when workflows of the old shape can no longer be resumed: DBOS resumes its own version only.
"""
QUEUE: Final = "jobs"
WORKFLOW: Final = "run_job"


class JobQueue:
    """The queue as seen from outside the worker."""

    def __init__(self, database: Database) -> None:
        from dbos import DBOSClient  # takes a second to import

        self._client = DBOSClient(system_database_engine=database.engine, application_name=APPLICATION, lazy=True)

    def enqueue(self, connection: sa.Connection, job_id: str, lane: Lane) -> None:
        """Put a job in line, as part of the caller's transaction."""
        self._client.enqueue_in_transaction(
            connection,
            {
                "workflow_name": WORKFLOW,
                "queue_name": QUEUE,
                "workflow_id": job_id,
                "app_version": APPLICATION_VERSION,
                "priority": priority_of(lane),
            },
            job_id,
        )

    async def register(self, *, worker_concurrency: int, poll_s: float) -> None:
        """Make the queue, or change how each worker reads it."""
        await self._client.register_queue_async(
            QUEUE, worker_concurrency=worker_concurrency, polling_interval_sec=poll_s
        )

    async def withdraw(self, job_id: str) -> None:
        """Take a job that never started out of the line."""
        await self._client.cancel_workflow_async(job_id)

    async def close(self) -> None:
        """Release the client; the database's connections stay open."""
        await asyncio.to_thread(self._client.destroy)
