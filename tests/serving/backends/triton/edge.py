"""Stands for the Serve handle of the edge, which these tests run without Ray."""

from collections.abc import Awaitable, Callable
from typing import Any

from serving.protocol.control import ControlCall
from serving.protocol.endpoint import Heartbeat


class Remote:
    """A method of a handle."""

    def __init__(self, method: Callable[..., Awaitable[Any]]) -> None:
        self.remote = method


class Edge:
    """Keeps every beat, and tells what it was given to remember."""

    def __init__(self, calls: list[ControlCall] | None = None) -> None:
        self.beats: list[Heartbeat] = []
        self.calls = calls or []
        self.heartbeat = Remote(self._heartbeat)
        self.recall = Remote(self._recall)

    @property
    def ready(self) -> set[str]:
        """Names of the models in rotation, by the last beat."""
        return {endpoint.model for endpoint in self.beats[-1].endpoints} if self.beats else set()

    async def _heartbeat(self, beat: Heartbeat) -> None:
        self.beats.append(beat)

    async def _recall(self) -> list[ControlCall]:
        return self.calls
