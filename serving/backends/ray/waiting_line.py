"""WaitingLine: the bounded queue of one model, by priority level; held by its scheduler.

The one invariant: a request is in the line once, or not at all.
"""

from collections.abc import Iterable, Iterator, Sequence

from serving.backends.ray.batch_forming import in_order
from serving.backends.ray.batch_rules import BatchRules
from serving.backends.ray.pace import Pace
from serving.backends.ray.work import Work
from serving.errors import QueueFull


class WaitingLine:
    """Requests that wait for an instance.

    Args:
        rules: of the model.
    """

    def __init__(self, rules: BatchRules) -> None:
        self._rules = rules
        # Of each level, those in time and those whose time in the queue has passed (timeout_action DELAY). Dicts for
        # their order and because a request that is cancelled leaves from the middle.
        self._levels: dict[int, tuple[dict[Work, None], dict[Work, None]]] = {}
        self._size = 0
        self._pace = Pace()

    def __len__(self) -> int:
        return self._size

    def add(self, work: Work, room: int = 0) -> None:
        """Add one at the end of its level.

        Args:
            work: to add.
            room: instances that are free, so that many do not really wait.

        Raises:
            QueueFull: the level is full.
        """
        level = self._levels.setdefault(work.level, ({}, {}))
        waiting = len(level[0]) + len(level[1])
        if waiting - room >= self._rules.policy_of(work.level).size:
            raise QueueFull("Exceeds maximum queue size", retry_after_s=self.retry_after_s())
        level[0][work] = None
        self._size += 1

    def discard(self, work: Work) -> bool:
        """Remove one; False where it does not wait."""
        for line in self._levels.get(work.level, ()):
            if work in line:
                del line[work]
                self._size -= 1
                return True
        return False

    def discard_all(self, works: Iterable[Work]) -> None:
        """Remove several."""
        for work in works:
            self.discard(work)

    def delay(self, work: Work) -> None:
        """Put one behind all of its level that are in time."""
        if self.discard(work):
            self._levels[work.level][1][work] = None
            self._size += 1

    def in_order(self, now_s: float) -> Iterator[Work]:
        """Those waiting, first to be served first."""
        if len(self._levels) == 1:
            ((fresh, late),) = self._levels.values()
            yield from fresh
            yield from late
        else:
            yield from in_order({level: [*fresh, *late] for level, (fresh, late) in self._levels.items()}, now_s)

    def measured(self, batch: Sequence[Work], seconds: float) -> None:
        """Learn from a finished batch how long one request keeps the model busy."""
        self._pace.measured(seconds / (len(batch) * self._rules.instances))

    def retry_after_s(self, more: int = 0) -> int:
        """In how many whole seconds the line, and ``more`` behind it, will have been served at the present pace."""
        return self._pace.retry_after_s(self._size + more)
