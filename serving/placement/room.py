"""Room: what a card still has for replicas, kept as they come and go; used by pack and by whoever checks a plan.

The one invariant: what is given to quick replicas is theirs at any moment, and the others can run at least one at a
time: their peaks take turns by leases, so the largest of them counts alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.placement.cards import Card, Load


@dataclass(slots=True)
class Room:
    """One card and the replicas on it.

    Attributes:
        card: where.
        usable_mib: of it.
        held: replicas by name.
    """

    card: Card
    usable_mib: float
    held: dict[str, Load] = field(default_factory=dict)
    weights_mib: float = 0.0
    quick_mib: float = 0.0
    long: int = 0
    quick: int = 0

    @property
    def turn_mib(self) -> float:
        """The largest peak of those that take turns."""
        return max((load.peak_mib for load in self.held.values() if load.pace != "quick"), default=0.0)

    @property
    def taken_mib(self) -> float:
        """Weights, peaks that may overlap, and the largest of those that may not."""
        return self.weights_mib + self.quick_mib + self.turn_mib

    @property
    def free_mib(self) -> float:
        """What is left."""
        return self.usable_mib - self.taken_mib

    def lacks_mib(self, load: Load) -> float:
        """How much memory is missing for one more replica; 0 or less where it fits."""
        turn = self.turn_mib
        quick = load.peak_mib if load.pace == "quick" else 0.0
        turn = turn if load.pace == "quick" else max(turn, load.peak_mib)
        return self.weights_mib + load.weights_mib + self.quick_mib + quick + turn - self.usable_mib

    def forbids(self, load: Load) -> str:
        """The rule that keeps a replica away, whatever the memory; empty where none does."""
        if self.card.is_slice and self.held:
            return "a slice is one replica's"
        if load.pace == "quick" and self.long:
            return "long calls run there"
        if load.pace == "long" and self.quick:
            return "somebody waits for answers there"
        return ""

    def takes(self, load: Load) -> bool:
        """Whether one more replica fits, by memory and rules."""
        return self.lacks_mib(load) <= 0.0 and not self.forbids(load)

    def put(self, name: str, load: Load) -> None:
        """Count a replica in."""
        self.held[name] = load
        self._count(load, 1)

    def remove(self, name: str) -> Load:
        """Count a replica out."""
        load = self.held.pop(name)
        self._count(load, -1)
        return load

    def _count(self, load: Load, sign: int) -> None:
        self.weights_mib += sign * load.weights_mib
        self.quick_mib += sign * (load.peak_mib if load.pace == "quick" else 0.0)
        self.long += sign * (load.pace == "long")
        self.quick += sign * (load.pace == "quick")


def rooms(cards: Mapping[str, Card], headroom: float) -> dict[str, Room]:
    """Empty ones."""
    return {name: Room(card, card.usable_mib(headroom)) for name, card in cards.items()}
