import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.serving.jobs.office import Office, open_office

BOTH = {"test_runner", "test_replies", "test_redis_stream"}
"""Modules whose tests run on both databases; those of the other brokers differ in what is not the database's."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "office" in metafunc.fixturenames and metafunc.module.__name__.rpartition(".")[2] in BOTH:
        metafunc.parametrize("office", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
async def office(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Office]:
    kind = getattr(request, "param", "sqlite")
    url = "" if kind == "sqlite" else request.getfixturevalue("postgres_database")
    async with open_office(tmp_path / "home", limits={"queued_jobs": 20}, jobs_database_url=url) as opened:
        yield opened
        # A look that was cancelled goes on in its thread until its transaction is over.
        while opened.database.engine.pool.checkedout():  # type: ignore[attr-defined]  # noqa: ASYNC110
            await asyncio.sleep(0.01)
