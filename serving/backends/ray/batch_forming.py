"""The decision which of the waiting requests are the next batch, and who is next to be looked at; asked by Scheduler.

The one invariant: pure functions. A batch has one bucket and never more rows than allowed, requests of a bucket and
priority keep their order, and nobody waits for ever behind requests of a higher priority.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from serving.backends.ray.batch_rules import BatchRules

PATIENCE_S: Final = 5.0
"""How long the first request of a priority level waits before it goes first, whatever else waits."""
LOOK_AHEAD: Final = 512
"""Requests looked at for one decision."""


class Waiting(Protocol):
    """What the decision needs to know of a request: batch size, what it may share a batch with, when it arrived."""

    rows: int
    bucket: object
    arrived_s: float


W = TypeVar("W", bound=Waiting)


class Choice(NamedTuple, Generic[W]):
    """The next batch; or, where ``taken`` is empty, after how many seconds to ask again (None: nobody waits)."""

    taken: Sequence[W] = ()
    wait_s: float | None = None


def in_order(levels: Mapping[int, Iterable[W]], now_s: float) -> Iterator[W]:
    """Those waiting, first to be served first: by priority, but for one of each level that waited too long.

    Args:
        levels: by priority, the lowest number first; each in the order of arrival.
        now_s: the scheduler's clock.
    """
    late: set[int] = set()
    ordered = sorted(levels)
    for level in ordered[1:]:
        first = next(iter(levels[level]), None)
        if first is not None and now_s - first.arrived_s > PATIENCE_S:
            late.add(id(first))
            yield first
    for level in ordered:
        for waiting in levels[level]:
            if id(waiting) not in late:
                yield waiting


def next_batch(waiting: Iterable[W], rules: BatchRules, now_s: float, *, patient: bool = True) -> Choice[W]:
    """Choose the next batch for an instance that is free.

    Args:
        waiting: as :func:`in_order` gives them.
        rules: of the model.
        now_s: the scheduler's clock.
        patient: whether waiting up to ``rules.delay_s`` for more requests is worth it.
    """
    if not rules.joins:
        return Choice(tuple(islice(waiting, 1)))
    buckets: dict[object, _Bucket[W]] = {}
    for one in islice(waiting, LOOK_AHEAD):
        if rules.keep_order and buckets and one.bucket not in buckets:
            next(iter(buckets.values())).closed = True
            break
        bucket = buckets.setdefault(one.bucket, _Bucket(rules))
        bucket.add(one)
        if bucket.closed and len(buckets) == 1:
            break
    waits = []
    for bucket in buckets.values():
        choice = bucket.choose(now_s, patient=patient)
        if choice.taken:
            return choice
        waits.append(choice.wait_s or 0.0)
    return Choice((), min(waits, default=None))


@dataclass(slots=True)
class _Bucket(Generic[W]):
    """Requests that may share a batch, as far as one batch holds them."""

    rules: BatchRules
    taken: list[W] = field(default_factory=list)
    rows: int = 0
    preferred: int = 0
    closed: bool = False

    def add(self, one: W) -> None:
        """Take one more, or close: what does not fit must not be overtaken by what would."""
        if self.closed or self.rows + one.rows > self.rules.most:
            self.closed = True
            return
        self.taken.append(one)
        self.rows += one.rows
        if self.rows in self.rules.preferred:
            self.preferred = len(self.taken)
        self.closed = self.rows == self.rules.most

    def choose(self, now_s: float, *, patient: bool) -> Choice[W]:
        if self.rows == self.rules.most:
            return Choice(self.taken)
        if self.preferred:
            return Choice(self.taken[: self.preferred])
        left_s = min(one.arrived_s for one in self.taken) + self.rules.delay_s - now_s
        if self.closed or not patient or left_s <= 0:
            return Choice(self.taken)
        return Choice((), left_s)
