"""An intake on a real broker, for the tests of each kind."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from uuid import uuid4

from serving.jobs.intake.base import Source, source_of
from serving.jobs.intake.replies import HeldReplies, StoredReplies
from serving.jobs.intake.runner import Intake
from serving.jobs.records import JobError
from serving.jobs.states import WAITING, WORKING
from serving.jobs.tables import change_job
from serving.jobs.types import JobState
from serving.settings import IntakeSettings
from tests.serving.jobs.office import Office


def intake_settings(kind: str, url: str, **changes: Any) -> IntakeSettings:
    """Of a queue that no other test uses."""
    return IntakeSettings.model_validate(
        {"kind": kind, "url": url, "queue": f"films-{uuid4().hex[:10]}", "tenant": "studio", **changes}
    )


def film_body(title: str, **input_: Any) -> str:
    return json.dumps({"type": "film", "input": {"title": title, "clips": 1, **input_}})


@asynccontextmanager
async def running(office: Office, settings: IntakeSettings, source: Source) -> AsyncIterator[Intake]:
    """The intake, as the gateway runs it, but quick."""
    name = source_of(settings.name)
    intake = Intake(
        source,
        office.desk,
        office.store,
        HeldReplies(office.store) if source.holds else StoredReplies(office.database, name, claim_s=1),
        name=settings.name,
        tenant=settings.tenant,
        prefetch=settings.prefetch,
        most_bytes=10_000,
        poll_s=0.05,
        first_pause_s=0.05,
    )
    intake.start()
    try:
        yield intake
    finally:
        await intake.stop()


T = TypeVar("T")


async def until(look: Callable[[], Awaitable[T]], timeout_s: float = 20) -> T:
    """What ``look`` finds, once it finds something."""
    async with asyncio.timeout(timeout_s):
        while not (found := await look()):  # noqa: ASYNC110  what is waited for tells nobody
            await asyncio.sleep(0.03)
        return found


async def titles(office: Office) -> list[str | None]:
    """Of all jobs, oldest first."""
    return [job.title for job in reversed((await office.store.page()).jobs)]


async def work(office: Office, job_id: str, progress: float = 0.5) -> None:
    """What a worker would write of a job that it has begun."""
    values: dict[str, Any] = {"progress": progress}
    if not await _change(office, job_id, WAITING, values | {"state": JobState.PROCESSING}):
        assert await _change(office, job_id, WORKING, values)


async def finish(office: Office, job_id: str, error: JobError | None = None) -> None:
    """What a worker would write of a job that it has ended."""
    await work(office, job_id)
    output = {"files": {}, "facts": {"clips": 1}}
    if error is None:
        values = {"state": JobState.COMPLETED, "progress": 1.0, "output": output}
    else:
        values = {"state": JobState.FAILED, "error": error.model_dump(mode="json")}
    assert await _change(office, job_id, WORKING, values)


async def _change(office: Office, job_id: str, among: Collection[JobState], values: Mapping[str, Any]) -> bool:
    return await office.database.run(
        lambda connection: change_job(connection, job_id, kind="state", among=among, values=values)
    )


async def job_of(office: Office, title: str) -> str | None:
    """The id of the job of that title, if it is there."""
    return next((job.id for job in (await office.store.page()).jobs if job.title == title), None)
