"""KeyWatch: follows the key file and hands on its keys whenever they change; held by EdgeDeployment.

The one invariant: a file that cannot be read or is wrong changes nothing but the log, which names no key and no hash.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog

from serving import telemetry
from serving.edge.key_file import Key, parse_keys, read_text
from serving.errors import BadInput

log = structlog.get_logger()

LOOK_S: Final = 0.5
"""How often the file is read; what is in it is compared, so that no clock and no link misleads."""

SETTLE_S: Final = 0.1
"""A changed file that is the same after this long is taken for written."""
SETTLING_LOOKS: Final = 10
"""One that changes all the time is taken as it is after so many looks."""


class KeyWatch:
    """Reads the file at the start and again and again; without a file it does nothing.

    Args:
        file: the key file, or None.
        use: takes the keys into use.
    """

    def __init__(self, file: Path | None, use: Callable[[tuple[Key, ...]], Awaitable[None]]) -> None:
        self._file = file
        self._use = use
        self._seen = ""
        self._refused = ""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take the file's keys into use and watch it from now on.

        Raises:
            BadInput: the file cannot be read, or something in it is wrong.
        """
        if self._file is None:
            return
        self._seen = await asyncio.to_thread(read_text, self._file)
        await self._take(await asyncio.to_thread(parse_keys, self._seen, self._file))
        self._task = asyncio.create_task(self._watch(self._file))

    async def stop(self) -> None:
        """Watch no longer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self, file: Path) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self._look(file)
            except BadInput as error:
                self._refuse(str(error))
            except Exception:  # the next turn may succeed; without turns, a removed key would work for ever
                log.exception("edge_keys_failed")

    async def _look(self, file: Path) -> None:
        text = await asyncio.to_thread(read_text, file)
        if text != self._seen:
            text = await self._settled(file, text)
        self._refused = ""
        if text == self._seen:
            return
        self._seen = text
        await self._take(await asyncio.to_thread(parse_keys, text, file))

    async def _settled(self, file: Path, text: str) -> str:
        """What is in the file once nobody is writing it: half a file may well be a valid one, with fewer keys."""
        for _ in range(SETTLING_LOOKS):
            await asyncio.sleep(SETTLE_S)
            again = await asyncio.to_thread(read_text, file)
            if again == text:
                break
            text = again
        return text

    async def _take(self, keys: tuple[Key, ...]) -> None:
        await self._use(keys)
        telemetry.EDGE_KEYS.set(len(keys))
        log.info("edge_keys_changed", keys=len(keys))

    def _refuse(self, problem: str) -> None:
        """Say it once, however often the file is read."""
        if problem != self._refused:
            self._refused = problem
            telemetry.EDGE_KEY_FILES_REFUSED.inc()
            log.error("edge_keys_refused", problem=problem, kept="the keys that were read last")
