"""Heart: tells the edge, again and again, where a replica listens; run by every replica and by the gateway.

The one invariant: a beat that fails is logged and tried again at the next one; it never harms the replica.
"""

import asyncio
import contextlib
from typing import Any, Final

import structlog

from serving.protocol.endpoint import Heartbeat

log = structlog.get_logger()

GOODBYE_S: Final = 0.5
"""How long the last beat may take: when the whole mesh stops, there is no edge to hear it."""


class Heart:
    """Sends one heartbeat every ``every_s`` seconds until stopped.

    Args:
        edge: Serve handle of the edge deployment.
        beat: what is sent.
        every_s: seconds between beats.
    """

    def __init__(self, edge: Any, beat: Heartbeat, every_s: float) -> None:  # noqa: ANN401  Ray is imported by owners
        self._edge = edge
        self._beat = beat
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    def start(self) -> None:
        """Begin; the first beat is sent at once."""
        self._task = asyncio.create_task(self._run())

    async def update(self, beat: Heartbeat) -> None:
        """Send another heartbeat from now on, the first one at once: the replica's addresses have changed."""
        self._beat = beat
        await self._send()

    async def stop(self) -> None:
        """Leave the mesh: one last beat with neither endpoints nor a control port."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._beat = self._beat.model_copy(update={"endpoints": [], "control": None})
        await self._send(GOODBYE_S)

    async def _run(self) -> None:
        while True:
            await self._send()
            await asyncio.sleep(self._every_s)

    async def _send(self, within_s: float | None = None) -> None:
        try:
            # Not wait_for, which may lose a cancel that comes together with the answer: stop() would never return.
            # In turn, so that an older beat never reaches the edge after a newer one.
            async with asyncio.timeout(within_s or max(self._every_s, 2.0)), self._turn:
                await self._edge.heartbeat.remote(self._beat)
        except Exception as error:  # Ray raises many kinds while the edge starts or moves
            log.warning("heartbeat_failed", replica=self._beat.replica_id, error=str(error)[:256])
