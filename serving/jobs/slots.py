"""Slots: how many jobs a worker runs at a time; used by the worker.

The one invariant: a new job starts only while fewer run than may; one that was running already, on a worker that is
lost or stopped, waits for nobody and may bring the count above that.
"""

import asyncio


class Slots:
    """Counts the jobs at work.

    Args:
        most: how many new ones may run at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._freed = asyncio.Event()

    async def wait(self) -> None:
        """Take a slot once one is free; asked by one task alone."""
        while self._taken >= self._most:
            self._freed.clear()
            await self._freed.wait()
        self._taken += 1

    def take(self) -> None:
        """Take a slot, be there one or not."""
        self._taken += 1

    def release(self) -> None:
        """Give a slot back."""
        self._taken -= 1
        self._freed.set()
