"""The front of the job system on a fresh SQLite file, for tests of jobs and of the gateway."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from serving.artifacts.store import ArtifactStore
from serving.jobs.database import Database
from serving.jobs.records import JobRecord
from serving.jobs.store import JobStore
from serving.jobs.submit import JobDesk, JobRequest
from serving.settings import Settings
from tests.serving.jobs.film import CATALOG


@dataclass
class Office:
    """The front of the job system on a fresh SQLite file."""

    settings: Settings
    store: JobStore
    desk: JobDesk
    artifacts: ArtifactStore
    database: Database

    async def submit(self, key: str | None = None, **wanted: object) -> JobRecord:
        own = {name: wanted.pop(name) for name in ("lane", "timeout_s") if name in wanted}
        request = JobRequest.model_validate({"type": "film", "input": {"title": "A film", **wanted}, **own})
        return (await self.desk.submit(request, key=key))[0]

    async def until(
        self, job_id: str, reached: Callable[[JobRecord], bool] | None = None, timeout_s: float = 20
    ) -> JobRecord:
        end = time.monotonic() + timeout_s
        while True:
            record = await self.store.get(job_id)
            if record.is_final or (reached is not None and reached(record)):
                return record
            assert time.monotonic() < end, f"still {record.state} in {record.stage}"
            await asyncio.sleep(0.02)

    def calls(self) -> list[str]:
        path = self.settings.home / "calls.log"
        return path.read_text().splitlines() if path.exists() else []


@asynccontextmanager
async def open_office(home: Path, **settings_: object) -> AsyncIterator[Office]:
    settings = Settings.model_validate({"home": home, **settings_}).resolved()
    database = Database(settings.jobs_database_url)
    await database.create()
    store = JobStore(database, queued_jobs=settings.limits.queued_jobs)
    artifacts = ArtifactStore(settings.artifacts_url, settings.home / "cache")
    yield Office(settings, store, JobDesk(store, CATALOG, artifacts), artifacts, database)
    await database.close()
