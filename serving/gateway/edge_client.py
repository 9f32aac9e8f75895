"""EdgeClient: the gateway asks the edge which replicas live, and what later ones shall repeat; used by OIP's parts.

The one invariant: every question is bounded in time, and what is answered from memory is at most :data:`FRESH_S` old.
"""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import Any, Final, Protocol, TypeVar

import structlog

from serving.errors import ReelmeshError, Unavailable, foreign_text
from serving.protocol.control import ControlCall
from serving.protocol.endpoint import Heartbeat

log = structlog.get_logger()

T = TypeVar("T")

ASK_S: Final = 5.0
"""How long the edge may take to answer the gateway."""
FRESH_S: Final = 0.2
"""How long the living replicas are remembered: a call through a Serve handle costs about 3 ms."""


class Edge(Protocol):
    """What the OIP's parts want of the edge."""

    async def replicas(self, *, fresh: bool = False) -> Sequence[Heartbeat]:
        """The last heartbeat of every living replica; ``fresh`` asks again whatever is remembered."""

    async def remember(self, call: ControlCall) -> None:
        """Keep a call for replicas that start later."""

    async def forget(self, key: str) -> None:
        """Drop the call with the key, or all whose keys begin with it where it ends in "/"."""

    async def recall(self, key: str) -> Sequence[ControlCall]:
        """The call with the key, if it is kept."""


class EdgeClient:
    """Asks the edge by its Serve handle.

    Args:
        handle: of the edge deployment.
    """

    def __init__(self, handle: Any) -> None:  # noqa: ANN401  Ray is imported by owners
        self._handle = handle
        self._found: Sequence[Heartbeat] = ()
        self._asked_s = float("-inf")
        self._asking: asyncio.Task[Sequence[Heartbeat]] | None = None
        self._following: asyncio.Task[Sequence[Heartbeat]] | None = None

    async def replicas(self, *, fresh: bool = False) -> Sequence[Heartbeat]:
        """The living replicas.

        Raises:
            Unavailable: the edge does not answer.
        """
        if not fresh and time.monotonic() - self._asked_s < FRESH_S:
            return self._found
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        elif fresh and self._following is None:
            # What is on its way may be older than what the caller knows to have happened.
            self._following = asyncio.create_task(self._ask_after(self._asking))
        # Many requests share one question; one of them going away must not end it for the others.
        return await asyncio.shield((self._following if fresh else None) or self._asking)

    async def remember(self, call: ControlCall) -> None:
        """Raises :class:`Unavailable` when the edge has no room for it."""
        await _answer(self._handle.remember.remote(call))

    async def forget(self, key: str) -> None:
        """A key that is not there is no error."""
        await _answer(self._handle.forget.remote(key))

    async def recall(self, key: str) -> Sequence[ControlCall]:
        """One call at the most: others may carry a model's files, and each answer is a copy."""
        calls: Sequence[ControlCall] = await _answer(self._handle.recall.remote(key))
        return calls

    async def _ask(self) -> Sequence[Heartbeat]:
        asked_s = time.monotonic()
        try:
            self._found = await _answer(self._handle.replicas.remote())
            self._asked_s = asked_s
            return self._found
        finally:
            self._asking = None

    async def _ask_after(self, earlier: asyncio.Task[Sequence[Heartbeat]]) -> Sequence[Heartbeat]:
        await asyncio.wait({earlier})
        self._asking, self._following = self._following, None
        return await self._ask()


async def _answer(call: Awaitable[T]) -> T:
    try:
        return await asyncio.wait_for(call, ASK_S)
    except Exception as error:  # Ray raises many kinds while the edge starts or moves
        cause = getattr(error, "cause", error)
        if isinstance(cause, ReelmeshError):
            raise cause from error
        log.warning("edge_not_asked", error=foreign_text(error) or type(error).__name__)
        raise Unavailable("the edge does not answer the gateway", fix="try again in a moment") from error
