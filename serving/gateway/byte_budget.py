"""ByteBudget: how much of clients' requests the gateway holds at a time, all together; asked by OIP's calls.

The one invariant: what was taken is given back when its request ends, however it ends.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from serving.errors import QueueFull


class Held:
    """What one request has taken of a budget."""

    def __init__(self, budget: "ByteBudget") -> None:
        self.taken = 0
        self._budget = budget

    def take(self, count: int) -> None:
        """Take more; raises :class:`QueueFull` when there is no room."""
        self._budget.take(count)
        self.taken += count


class ByteBudget:
    """A bound on bytes, shared by all requests of one event loop.

    Args:
        most: how many there are.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    def take(self, count: int) -> None:
        """Take bytes; raises :class:`QueueFull` when others hold too many."""
        if self._taken + count > self._most:
            raise QueueFull(
                f"the gateway holds {self._most:,} bytes of requests already",
                field="limits.gateway_bytes",
                fix="try again in a moment",
            )
        self._taken += count

    @contextmanager
    def holding(self) -> Iterator[Held]:
        """For the time of one request."""
        held = Held(self)
        try:
            yield held
        finally:
            self._taken -= held.taken
