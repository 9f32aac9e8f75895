from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from serving.jobs.worker import JobWorker
from tests.serving.gateway.site import Site, open_site, open_worker


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
async def worker(site: Site) -> AsyncIterator[JobWorker]:
    async with open_worker(site.office) as running:
        yield running
