"""Ledger: who holds how much of each card of a node, and who waits; the state of the node's ledger actor, pure.

The one invariant: what is resident and what is leased never exceed a card, but after a restore of what already ran; and
who waits first for a card in lane order gets it first, so nobody waits for ever.

A request takes all its cards at once or none, so two requests in one ledger cannot hold what the other wants. Requests
over several nodes lease from their ledgers in the order of the nodes' names (:func:`in_order`), which leaves no cycle
of waiting (Havender, 1968).

Ages count: one lane further down is worth :data:`AGEING_S` seconds of waiting. All who wait grow older together, so
that order never changes, and is kept sorted.
"""

import math
from bisect import insort
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from serving.errors import BadInput, DeadlineExceeded, NotFound, OutOfMemory, QueueFull

AGEING_S: Final = 30.0
"""Seconds that a request of a lane may be overtaken by those of the lane above."""
MOST_WAITING: Final = 10_000
"""Requests that wait in one ledger."""
RETRY_S: Final = 5


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request wants before it starts.

    Attributes:
        replica: that will run it.
        mib: predicted peak by card.
        rank: of its lane; 0 comes first.
        deadline: of the ledger's clock, when it must have ended; None is none.
        holder: the process, whose end ends the lease.
    """

    replica: str
    mib: Mapping[str, float]
    rank: int = 2
    deadline: float | None = None
    holder: str = ""


@dataclass(slots=True, order=True)
class Ticket:
    """A place in the line, and then a lease; compared by whose turn it is."""

    turn: float
    number: int
    ask: Ask = field(compare=False)
    asked_at: float = field(compare=False)
    granted_at: float | None = field(default=None, compare=False)

    @property
    def is_granted(self) -> bool:
        """Whether it is a lease."""
        return self.granted_at is not None


class Ledger:
    """Cards of one node.

    Args:
        capacity_mib: what may be given of each card.
    """

    def __init__(self, capacity_mib: Mapping[str, float]) -> None:
        for card, mib in capacity_mib.items():
            _check(mib, card)
        self.capacity_mib = dict(capacity_mib)
        self._free = dict(capacity_mib)
        self._resident: dict[tuple[str, str], float] = {}
        self._held: dict[int, Ticket] = {}
        self._waiting: list[Ticket] = []
        self._numbers = count()

    def free_mib(self, card: str) -> float:
        """What nobody holds; below 0 only after a restore."""
        return self._free[card]

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    @property
    def leases(self) -> int:
        """Requests that run."""
        return len(self._held)

    def settle(self, replica: str, card: str, mib: float, now: float) -> list[Ticket]:
        """Count what a replica keeps on a card as long as it is there: its weights, and the peak of a quick one.

        Gives the leases that begin where that is less than before.

        Raises:
            NotFound: there is no such card.
            OutOfMemory: the card has less; nothing changes.
        """
        _check(mib, f"{replica}: resident memory")
        more = mib - self._resident.get((replica, card), 0.0)
        free = self._free_of(card, replica)
        if more > free:
            problem = f"{card} has {free:,.0f} MiB free, and {replica} needs {more:,.0f} more"
            raise OutOfMemory(problem, field=card, fix="evict an idle model first, or place the replica elsewhere")
        self._resident[replica, card] = mib
        self._free[card] = free - more
        return self._advance(now) if more < 0 else []

    def leave(self, replica: str, now: float) -> list[Ticket]:
        """Forget a replica, its leases and those that it waits for; gives the leases that begin."""
        for key in [key for key in self._resident if key[0] == replica]:
            self._free[key[1]] += self._resident.pop(key)
        return self._drop(lambda ticket: ticket.ask.replica == replica, now)

    def replace(self, going: Iterable[str], replica: str, card: str, mib: float, now: float) -> list[Ticket]:
        """Let residents without leases go and settle another in their place, before anybody who waits can take it.

        Raises:
            NotFound: there is no such card.
            OutOfMemory: even so it does not fit; nothing changes.
        """
        keys = [(name, card) for name in going if (name, card) in self._resident]
        freed = sum(self._resident[key] for key in keys)
        free = self._free_of(card, replica)
        if mib > free + freed:
            problem = f"{card} would have {free + freed:,.0f} MiB free, and {replica} needs {mib:,.0f}"
            raise OutOfMemory(problem, field=card, fix="evict more, or place the replica elsewhere")
        for key in keys:
            self._free[card] += self._resident.pop(key)
        return self.settle(replica, card, mib, now) or self._advance(now)

    def ask(self, ask: Ask, now: float) -> Ticket:
        """Lease at once, or wait in line.

        Args:
            ask: what is wanted.
            now: seconds of a clock that never goes back.

        Raises:
            NotFound: there is no such card.
            BadInput: an amount that is none, or more than the card has beside what is resident for good.
            DeadlineExceeded: its deadline is over.
            QueueFull: too many wait.
        """
        for card, mib in ask.mib.items():
            _check(mib, f"{ask.replica}: peak on {card}")
            if mib > self.capacity_mib[self._known(card, ask.replica)]:
                problem = f"wants {mib:,.0f} MiB, and {card} has {self.capacity_mib[card]:,.0f}"
                raise BadInput(problem, field=ask.replica, fix="ask for smaller sizes, or place it on a larger card")
        if ask.deadline is not None and ask.deadline <= now:
            raise DeadlineExceeded("its deadline was over before it got memory", field=ask.replica)
        ticket = Ticket(now + ask.rank * AGEING_S, next(self._numbers), ask, now)
        if len(self._waiting) >= MOST_WAITING:
            raise QueueFull(f"{MOST_WAITING} requests wait for memory", field=ask.replica, retry_after_s=RETRY_S)
        if self._fits(ask) and not self._is_awaited(ask.mib, ticket):
            self._grant(ticket, now)
        else:
            insort(self._waiting, ticket)
        return ticket

    def end(self, ticket: Ticket, now: float) -> list[Ticket]:
        """A request is done, or wants to wait no more; gives the leases that begin. Twice is as once."""
        if self._held.pop(ticket.number, None) is not None:
            self._give_back(ticket)
        elif ticket in self._waiting:
            self._waiting.remove(ticket)
        else:
            return []
        return self._advance(now)

    def ended_with(self, holder: str, now: float) -> list[Ticket]:
        """A process has ended: so do its leases. Gives those that begin."""
        return self._drop(lambda ticket: ticket.ask.holder == holder, now)

    def expire(self, now: float) -> tuple[list[Ticket], list[Ticket]]:
        """End what is past its deadline: those that ended, and the leases that begin."""
        late = [
            ticket
            for ticket in (*self._held.values(), *self._waiting)
            if ticket.ask.deadline is not None and ticket.ask.deadline <= now
        ]
        numbers = {ticket.number for ticket in late}
        return late, self._drop(lambda ticket: ticket.number in numbers, now) if late else []

    def restore(self, resident: Iterable[tuple[str, str, float]], running: Iterable[Ask], now: float) -> list[Ticket]:
        """Take over what replicas say that they hold, whatever the sum: a ledger that is new after a crash.

        Returns:
            The leases of what runs, in the order of ``running``.
        """
        for replica, card, mib in resident:
            self._free[self._known(card, replica)] -= mib - self._resident.get((replica, card), 0.0)
            self._resident[replica, card] = mib
        found = []
        for ask in running:
            ticket = Ticket(now, next(self._numbers), ask, now)
            self._grant(ticket, now)
            found.append(ticket)
        return found

    def crowded(self) -> dict[str, float]:
        """MiB by card that residents must give up before those who wait could ever run, even once nothing else does."""
        resident = dict.fromkeys(self.capacity_mib, 0.0)
        for (_, card), mib in self._resident.items():
            resident[card] += mib
        lacks: dict[str, float] = {}
        for ticket in self._waiting:
            for card, mib in ticket.ask.mib.items():
                lacks[card] = max(lacks.get(card, 0.0), resident[card] + mib - self.capacity_mib[card])
        return {card: mib for card, mib in lacks.items() if mib > 0.0}

    def next_deadline(self) -> float | None:
        """When to call :meth:`expire` next."""
        times = [ticket.ask.deadline for ticket in (*self._held.values(), *self._waiting)]
        return min((at for at in times if at is not None), default=None)

    def _known(self, card: str, field: str) -> str:
        if card not in self.capacity_mib:
            known = ", ".join(sorted(self.capacity_mib))[:200] or "none"
            raise NotFound(f"there is no card {card[:64]!r}", field=field, fix=f"this node has {known}")
        return card

    def _free_of(self, card: str, field: str) -> float:
        return self._free[self._known(card, field)]

    def _fits(self, ask: Ask) -> bool:
        return all(mib <= self._free[card] for card, mib in ask.mib.items())

    def _is_awaited(self, mib: Mapping[str, float], ticket: Ticket) -> bool:
        """Whether somebody whose turn is earlier waits for one of these cards."""
        return any(other < ticket and not mib.keys().isdisjoint(other.ask.mib) for other in self._waiting)

    def _grant(self, ticket: Ticket, now: float) -> None:
        for card, mib in ticket.ask.mib.items():
            self._free[self._known(card, ticket.ask.replica)] -= mib
        ticket.granted_at = now
        self._held[ticket.number] = ticket

    def _give_back(self, ticket: Ticket) -> None:
        for card, mib in ticket.ask.mib.items():
            self._free[card] += mib

    def _drop(self, gone: Callable[[Ticket], bool], now: float) -> list[Ticket]:
        for ticket in [ticket for ticket in self._held.values() if gone(ticket)]:
            del self._held[ticket.number]
            self._give_back(ticket)
        self._waiting = [ticket for ticket in self._waiting if not gone(ticket)]
        return self._advance(now)

    def _advance(self, now: float) -> list[Ticket]:
        """Grant in order of turn. Who does not fit keeps the cards that he waits for from those behind him."""
        begun: list[Ticket] = []
        closed: set[str] = set()
        for ticket in self._waiting:
            if closed.isdisjoint(ticket.ask.mib) and self._fits(ticket.ask):
                self._grant(ticket, now)
                begun.append(ticket)
            else:
                closed |= ticket.ask.mib.keys()
                if len(closed) == len(self.capacity_mib):
                    break
        if begun:
            granted = {ticket.number for ticket in begun}
            self._waiting = [ticket for ticket in self._waiting if ticket.number not in granted]
        return begun


def in_order(asks: Mapping[str, Ask]) -> list[tuple[str, Ask]]:
    """Of a request over several nodes, the asks in the order in which their ledgers must be asked."""
    return sorted(asks.items())


def _check(mib: float, field: str) -> None:
    if not math.isfinite(mib) or mib < 0:
        raise BadInput(f"{mib} is no amount of memory", field=field, fix="give MiB, 0 or more")
