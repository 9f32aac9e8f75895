"""Processes of the job system that a test may kill at any moment: workers, and a front end that takes jobs in.

The one invariant: they are forked from a process that has everything imported and nothing started, so that a new one
is at work within a tenth of a second, and they end with the process that forked them.
"""

import asyncio
import os
import random
import time
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from serving.artifacts.store import ArtifactStore
from serving.jobs.states import FINAL
from serving.jobs.worker import JobWorker
from serving.settings import Settings
from tests.serving.jobs.film import CATALOG, CountingRouter
from tests.serving.jobs.office import open_office

WORKER = {"concurrent_jobs": 2, "poll_s": 0.05, "beat_s": 0.25}
MOST_AT_ONCE = 8
"""Films that are on their way while the front end takes more in."""


class DatedRouter(CountingRouter):
    """Writes when each call began and ended before what it was."""

    def _write(self, line: str) -> None:
        super()._write(f"{time.time():.6f} {line}")


def settings_of(home: Path, database_url: str) -> Settings:
    """What all processes of one crew agree on."""
    values = {"home": home, "jobs_database_url": database_url, "worker": WORKER, "log": {"level": "warning"}}
    return Settings.model_validate(values).resolved()


def work(home: Path, database_url: str) -> None:
    """A worker's process."""
    asyncio.run(_work(home, database_url))


async def _work(home: Path, database_url: str) -> None:
    settings = settings_of(home, database_url)
    _log_to(home / "workers.log")
    router = DatedRouter(ArtifactStore(settings.artifacts_url, home / "cache"), home / "calls.log")
    await JobWorker.start(settings, CATALOG, router)
    await _while_starter_lives()


def accept(home: Path, database_url: str) -> None:
    """A front end's process: takes films in one after the other, and notes those whose acceptance it was told."""
    asyncio.run(_accept(home, database_url))


async def _accept(home: Path, database_url: str) -> None:
    _log_to(home / "front.log")
    accepted = home / "accepted"
    number = len(accepted.read_text().splitlines()) if accepted.exists() else 0
    async with open_office(home, jobs_database_url=database_url) as office:
        while not (home / "closed").exists():
            counts = await office.store.counts()
            if sum(n for (_, state, _), n in counts.items() if state not in FINAL) < MOST_AT_ONCE:
                # No two are of one length, or the cache would do most of the work.
                seconds = 0.03 + 0.02 * (number % 5) + number / 1e6
                record = await office.submit(key=f"film-{number}", clips=3, seconds=seconds)
                with accepted.open("a") as stream:
                    stream.write(record.id + "\n")
                    stream.flush()
                    os.fsync(stream.fileno())
                number += 1
            await asyncio.sleep(0.03)
    (home / "left").touch()
    await _while_starter_lives()


def _log_to(path: Path) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


async def _while_starter_lives() -> None:
    starter = os.getppid()
    while os.getppid() == starter:  # noqa: ASYNC110  the kernel tells nobody when a parent ends
        await asyncio.sleep(0.5)


class Crew:
    """Two workers and a front end on one home.

    Args:
        home: shared by all.
        database_url: of the jobs database.
        chance: decides who is killed.
    """

    def __init__(self, home: Path, database_url: str, chance: random.Random) -> None:
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload([__name__, "serving.jobs.executor", "serving.jobs.context"])
        self._where = (home, database_url)
        self._chance = chance
        self.members: dict[str, ForkServerProcess] = {}

    def start(self, *names: str) -> None:
        """Start ``front``, or a worker of any other name."""
        for name in names:
            target = accept if name == "front" else work
            self.members[name] = self._context.Process(target=target, args=self._where, daemon=True)
            self.members[name].start()

    def kill(self, *names: str) -> None:
        """Kill -9."""
        for name in names:
            self.members[name].kill()
        for name in names:
            self.members.pop(name).join()

    def victims(self) -> list[str]:
        """Whom the next round kills: one of the crew, or half of it, or all."""
        everybody = sorted(self.members)
        return self._chance.sample(everybody, self._chance.choice([1, 1, 1, 2, len(everybody)]))
