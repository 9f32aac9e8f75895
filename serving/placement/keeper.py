"""Keeper: which models lie on a node's cards, in its host memory, or on disk alone; pure, the core of the node's actor
and of the simulator.

The one invariant: a model leaves a card only when nothing of it runs, waits or loads, and what a card holds is counted
in the node's ledger before it is there and until it is gone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from serving.errors import NotFound, OutOfMemory
from serving.placement.cards import Card, Load
from serving.placement.evict import Enough, Resident, Uses, frees, leaving
from serving.placement.ledger import Ask, Ledger, Ticket

HOST_MIB_PER_S: Final = 10_000.0
"""Pinned host memory to a card over PCIe 4.0 x16, of which 12 to 25 GB/s are had."""
DISK_MIB_PER_S: Final = 1_500.0
"""From a local NVMe disk, with what torch does beside."""


class Place(StrEnum):
    """Where a model's weights are."""

    CARD = "card"
    HOST = "host"
    DISK = "disk"


@dataclass(slots=True)
class Held:
    """A model on a card."""

    load: Load
    card: str
    busy: int = 0
    ready: bool = False

    @property
    def name(self) -> str:
        """Of the resident in the ledger."""
        return f"{self.load.model}@{self.card}"

    @property
    def kept_mib(self) -> float:
        """What it keeps: quick models never wait for memory, so theirs is kept with the weights."""
        return self.load.whole_mib if self.load.pace == "quick" else self.load.weights_mib

    @property
    def in_use(self) -> bool:
        """Whether a request runs or waits, or the weights are on their way."""
        return self.busy > 0 or not self.ready

    @property
    def leased_mib(self) -> float:
        """What a request leases beside that."""
        return 0.0 if self.load.pace == "quick" else self.load.peak_mib


@dataclass(frozen=True, slots=True)
class Loading:
    """What has to be done before a model's requests can run.

    Attributes:
        held: the model, counted in already.
        source: where its weights come from.
        seconds: that this takes by the node's rates.
        evicted: models that left its card for it.
        thrashes: whether it comes back for the third time within the hour.
        begun: leases that begin, since more left than it takes.
    """

    held: Held
    source: Place
    seconds: float
    evicted: tuple[str, ...]
    thrashes: bool
    begun: tuple[Ticket, ...]


@dataclass(slots=True)
class Host:
    """Pinned memory of a node, which holds what left its cards as long as there is room; the least worthy goes.

    Attributes:
        capacity_mib: of it.
        models: in it, with their MiB.
    """

    capacity_mib: float
    models: dict[str, float] = field(default_factory=dict)

    def keep(self, model: str, mib: float, disk_s: float, uses: Uses, now: float) -> bool:
        """Take a model in; whether it is there now."""
        if mib > self.capacity_mib:
            return False
        others = [
            Resident(name, name, held, held / DISK_MIB_PER_S) for name, held in self.models.items() if name != model
        ]
        lacks = sum(one.mib for one in others) + mib - self.capacity_mib
        going = leaving(others, frees(lacks), uses, now)
        newcomer = uses.worth(Resident(model, model, mib, disk_s), now)
        if going is None or any(uses.worth(one, now) > newcomer for one in going):
            return False
        for one in going:
            del self.models[one.name]
        self.models[model] = mib
        return True


class Keeper:
    """One node.

    Args:
        cards: of the node.
        headroom: of each that is kept free.
        host_mib: pinned memory for sleeping models.
    """

    def __init__(self, cards: Iterable[Card], headroom: float, host_mib: float) -> None:
        self.usable = {card.name: card.usable_mib(headroom) for card in cards}
        self.ledger = Ledger(self.usable)
        self.host = Host(host_mib)
        self.uses = Uses()
        self.held: dict[tuple[str, str], Held] = {}

    def find(self, model: str) -> Held | None:
        """Where a model lies, ready or on its way; the copy with the fewest requests."""
        there = [held for (name, _), held in self.held.items() if name == model]
        return min(there, key=lambda held: (not held.ready, held.busy, held.card), default=None)

    def want(self, load: Load, now: float, only: Iterable[str] | None = None) -> Loading | None:
        """Make room for a model on the card where that costs the least, and count it in.

        Args:
            load: of the model.
            now: the clock.
            only: cards that may be used; None means all.

        Returns:
            What has to be loaded; None where every card is in use: ask again when something ends.
        """
        best: tuple[float, float, str, list[Resident]] | None = None
        for card in self.usable if only is None else only:
            if (load.model, card) in self.held:
                continue
            going = leaving(self._residents(card), self._enough(card, load), self.uses, now)
            if going is None:
                continue
            cost = sum(self.uses.worth(one, now) * one.mib for one in going)
            choice = (cost, -self.ledger.free_mib(card), card, going)
            if best is None or choice[:3] < best[:3]:
                best = choice
        return None if best is None else self._put(load, best[2], best[3], now)

    def loaded(self, held: Held) -> None:
        """Its weights are there."""
        held.ready = True

    def failed(self, held: Held, now: float) -> list[Ticket]:
        """Its weights did not come: count it out."""
        return self._drop(held, now)

    def ask(self, held: Held, now: float, *, rank: int = 2, deadline: float | None = None, holder: str = "") -> Ticket:
        """Lease the peak of one request, or wait for it in lane order."""
        self.uses.used(held.load.model, now)
        ask = Ask(held.name, {held.card: held.leased_mib}, rank, deadline, holder)
        ticket = self.ledger.ask(ask, now)
        held.busy += 1
        return ticket

    def end(self, held: Held, ticket: Ticket, now: float) -> list[Ticket]:
        """A request is over; gives the leases that begin."""
        held.busy -= 1
        return self.ledger.end(ticket, now)

    def evict(self, model: str, card: str, now: float) -> list[Ticket]:
        """Let a model go from a card.

        Raises:
            NotFound: it is not there.
            OutOfMemory: it is in use.
        """
        held = self.held.get((model, card))
        if held is None:
            raise NotFound(f"{model} is not on {card}", field="model")
        if held.in_use:
            raise OutOfMemory(f"{model} is in use on {card}", field="model", fix="wait for its requests to end")
        self._left(held.load, now)
        return self._drop(held, now)

    def _enough(self, card: str, load: Load) -> Enough:
        """Whether there is room for a model now, and later for the largest request of all that stay with it."""
        there = [held for (_, where), held in self.held.items() if where == card]
        newcomer, free = Held(load, card), self.ledger.free_mib(card)

        def enough(going: Sequence[Resident]) -> bool:
            names = {one.name for one in going}
            staying = [newcomer, *(held for held in there if held.name not in names)]
            later = sum(held.kept_mib for held in staying) + max(held.leased_mib for held in staying)
            now = newcomer.kept_mib - sum(one.mib for one in going)
            return now <= free and later <= self.usable[card]

        return enough

    def _residents(self, card: str) -> list[Resident]:
        return [
            Resident(held.name, held.load.model, held.kept_mib, self._reload_s(held.load), held.in_use)
            for (_, where), held in self.held.items()
            if where == card
        ]

    def _reload_s(self, load: Load) -> float:
        fits = load.weights_mib <= self.host.capacity_mib
        return load.weights_mib / (HOST_MIB_PER_S if fits else DISK_MIB_PER_S)

    def _put(self, load: Load, card: str, going: list[Resident], now: float) -> Loading:
        source = Place.HOST if load.model in self.host.models else Place.DISK
        rate = HOST_MIB_PER_S if source == Place.HOST else DISK_MIB_PER_S
        held = Held(load, card)
        begun = self.ledger.replace([one.name for one in going], held.name, card, held.kept_mib, now)
        for one in going:
            self._left(self.held.pop((one.model, card)).load, now)
        self.held[load.model, card] = held
        thrashes = self.uses.came_back(load.model, now)
        evicted = tuple(one.model for one in going)
        return Loading(held, source, load.weights_mib / rate, evicted, thrashes, tuple(begun))

    def _left(self, load: Load, now: float) -> None:
        self.uses.left(load.model, now)
        self.host.keep(load.model, load.weights_mib, load.weights_mib / DISK_MIB_PER_S, self.uses, now)

    def _drop(self, held: Held, now: float) -> list[Ticket]:
        del self.held[held.load.model, held.card]
        return self.ledger.leave(held.name, now)


def resident_mib(keeper: Keeper) -> Mapping[str, float]:
    """Weights on each card."""
    found = dict.fromkeys(keeper.usable, 0.0)
    for (_, card), held in keeper.held.items():
        found[card] += held.load.weights_mib
    return found
