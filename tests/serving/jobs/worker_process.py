"""A worker in a process of its own, for tests that kill it: ``python -m tests.serving.jobs.worker_process HOME``."""

import asyncio
import sys
from pathlib import Path

from serving.artifacts.store import ArtifactStore
from serving.jobs.worker import JobWorker
from serving.settings import Settings
from tests.serving.jobs.film import CATALOG, CountingRouter


async def main(home: Path) -> None:
    settings = Settings(home=home).resolved()
    router = CountingRouter(ArtifactStore(settings.artifacts_url, home / "cache"), home / "calls.log")
    await JobWorker.start(settings, CATALOG, router)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
