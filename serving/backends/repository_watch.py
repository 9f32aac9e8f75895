"""RepositoryWatch: control mode ``poll``, which loads and unloads models as their folders change; run by replicas.

The one invariant: a folder is loaded once for each change of it; one that does not load is tried again when it changes.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import structlog

from serving.errors import NotFound, ReelmeshError
from serving.repository.load import model_folders

log = structlog.get_logger()

MAX_ENTRIES: Final = 10_000
"""Files of one model that are looked at; its folder may hold a link to a folder above it."""

Stamps = Mapping[str, int]
"""What each model's folder looked like, by name."""


class Reloads(Protocol):
    """Whatever loads and unloads models by name."""

    async def reload(self, name: str) -> None:
        """Load a model as its folder is now; raises :class:`NotFound` for a model of other replicas."""

    async def remove(self, name: str, *, hide: bool) -> None:
        """Unload it, and with ``hide`` forget it."""


class RepositoryWatch:
    """Looks at the repositories.

    Args:
        paths: of the repositories; where two have a model of the same name the first one wins.
        models: loads and unloads.
        every_s: seconds between looks.
    """

    def __init__(self, paths: Sequence[Path], models: Reloads, every_s: float) -> None:
        self._paths = paths
        self._models = models
        self._every_s = every_s
        self._seen: Stamps = stamps(paths)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; what was there when it was made counts as loaded."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; a load under way is not waited for."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self) -> None:
        """Compare the folders with the last look and act on the differences."""
        before, self._seen = self._seen, await asyncio.to_thread(stamps, self._paths)
        for name in sorted(before.keys() - self._seen.keys()):
            await self._remove(name)
        for name in sorted(self._seen):
            if self._seen[name] != before.get(name):
                await self._load(name)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.look()
            except Exception:  # the next look may succeed; without looks, nothing would change any more
                log.exception("repository_watch_failed")

    async def _load(self, name: str) -> None:
        try:
            await self._models.reload(name)
        except NotFound:
            await self._remove(name)  # it is another kind of replica's now
        except ReelmeshError as error:
            log.error("model_not_loaded", model=name, error=str(error))

    async def _remove(self, name: str) -> None:
        try:
            await self._models.remove(name, hide=True)
        except NotFound:
            return
        except ReelmeshError as error:
            log.error("model_not_unloaded", model=name, error=str(error))


def stamps(paths: Sequence[Path]) -> dict[str, int]:
    """What every model's folder looks like now."""
    found: dict[str, int] = {}
    for path in paths:
        for folder in model_folders(path):
            if folder.name not in found:
                found[folder.name] = _stamp(folder)
    return found


def _stamp(folder: Path) -> int:
    entries: list[tuple[str, int, int]] = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        for name in (*folders, *files):
            place = Path(parent, name)
            try:
                status = place.stat()
            except OSError:
                continue
            entries.append((str(place), status.st_mtime_ns, status.st_size))
        if len(entries) > MAX_ENTRIES:
            break
    return hash(tuple(sorted(entries)))
