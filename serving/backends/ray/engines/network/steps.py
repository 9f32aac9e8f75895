"""Steps: what a network tells while it works on a batch, and how cancelled requests leave it; made by the runner.

The one invariant: a cancelled request is answered within one step; the work stops once nobody waits for any of it.
"""

from collections.abc import Callable, Sequence

from serving.backends.call import Call
from serving.errors import Cancelled, ReelmeshError


class Steps:
    """Called by the network after each step, from its thread.

    Args:
        calls: of the batch's requests, in order.
        left: told the index of a request that was cancelled or is too late, and why; from the network's thread.
    """

    def __init__(self, calls: Sequence[Call], left: Callable[[int, ReelmeshError], None]) -> None:
        self._calls = list(calls)
        self._left = left
        self._gone: set[int] = set()
        self.done = 0

    def __call__(self, done: int, total: int) -> None:
        """One step is over.

        Args:
            done: steps so far, of this part of the work.
            total: steps of it.

        Raises:
            Cancelled: nobody waits for the batch any more.
        """
        self.done = max(self.done, done)
        for index, call in enumerate(self._calls):
            if index in self._gone:
                continue
            try:
                call.checkpoint()
            except ReelmeshError as error:
                self._gone.add(index)
                self._left(index, error)
            else:
                call.tell(done / total if total else 1.0)
        if len(self._gone) == len(self._calls):
            raise Cancelled("nobody waits for the batch any more")

    def gone(self, index: int) -> bool:
        """Whether nobody waits for that request any more, so that its part of the work may be left out."""
        return index in self._gone
