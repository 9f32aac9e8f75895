from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from serving.jobs.database import Database
from serving.jobs.worker import JobWorker
from tests.serving.jobs.film import CATALOG, CountingRouter
from tests.serving.jobs.office import Office, open_office


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with open_office(tmp_path / "home", limits={"queued_jobs": 20}) as opened:
        yield opened


@pytest.fixture
async def start_worker(office: Office) -> AsyncIterator[Callable[[], Awaitable[JobWorker]]]:
    workers: list[JobWorker] = []

    async def start() -> JobWorker:
        router = CountingRouter(office.artifacts, office.settings.home / "calls.log")
        workers.append(await JobWorker.start(office.settings, CATALOG, router))
        return workers[-1]

    yield start
    for worker in workers:
        await worker.shutdown()


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path}/jobs.db" if sqlite else request.getfixturevalue("postgres_database")
    opened = Database(url)
    await opened.create()
    yield opened
    await opened.close()
