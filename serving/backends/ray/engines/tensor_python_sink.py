"""ResponseQueue: responses of one request on their way from a model's threads to the event loop; used by tensor_python.

The one invariant: a model that answers faster than its client reads is held up in ``send``; after a cancel it is not.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Final

from serving.backends.ray.engines.tensor_python_types import InferenceResponse
from serving.errors import ReelmeshError

MOST_WAITING: Final = 256
"""Responses of one request that wait for its client before ``send`` blocks."""
_LOOK_S: Final = 0.2
"""How often a blocked ``send`` looks whether the request was cancelled."""

Item = InferenceResponse | ReelmeshError | None


class ResponseQueue:
    """Takes responses from any thread and gives them out on the loop.

    Args:
        loop: of whoever iterates.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: asyncio.Queue[Item] = asyncio.Queue()
        self._room = threading.Semaphore(MOST_WAITING)
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits any more."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Nobody waits any more: what is sent from now on is dropped."""
        self._cancelled.set()

    def send(self, response: InferenceResponse | None, *, final: bool) -> None:
        """Queue a response, and the end where it is the last."""
        if response is not None:
            while not self._room.acquire(timeout=_LOOK_S):
                if self.cancelled:
                    return
            self._put(response)
        if final:
            self._put(None)

    def fail(self, error: ReelmeshError) -> None:
        """End with an error."""
        self._put(error)

    async def items(self) -> AsyncIterator[InferenceResponse]:
        """Responses up to the last; raises what :meth:`fail` was given."""
        while (item := await self._items.get()) is not None:
            if isinstance(item, ReelmeshError):
                raise item
            self._room.release()
            yield item

    def _put(self, item: Item) -> None:
        if not self.cancelled and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)
