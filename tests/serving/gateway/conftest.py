from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from serving.jobs.worker import JobWorker
from tests.serving.gateway.oip_site import OipSite, open_oip
from tests.serving.gateway.site import Site, open_site, open_worker


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
async def worker(site: Site) -> AsyncIterator[JobWorker]:
    async with open_worker(site.office) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def steady() -> AsyncIterator[OipSite]:
    """For tests that change nothing; mark them ``asyncio(loop_scope="module")``."""
    async with open_oip() as opened:
        yield opened


@pytest.fixture
async def oip() -> AsyncIterator[OipSite]:
    async with open_oip() as opened:
        yield opened
