"""pack: from cards, models and wanted replicas to a plan that moves as little as possible; pure.

The one invariant: no card of a plan is ever given more than it has, in any order in which its replicas' requests come.

Replicas that run stay where they are if they may. The others are placed largest first on the card that they leave the
least of (best fit decreasing, at most 22 % more bins than the best: Johnson, 1974), near the models they hand over to
and away from replicas of their own model. Where one fits nowhere, one smaller replica makes room for it if it fits
elsewhere.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from serving.errors import BadInput
from serving.placement.cards import HEADROOM, Card, Load, check_cards, replica_names
from serving.placement.plan import Move, Plan, Unplaced
from serving.placement.room import Room, rooms

_RANK: Final = {"quick": 0, "any": 1, "long": 2}
"""Quick replicas choose first: they may share with the fewest."""
SPARE: Final = 0.95
"""Of a card that may be filled at most, when somebody wants to keep less free."""


def pack(
    cards: Sequence[Card],
    loads: Iterable[Load],
    wanted: Mapping[str, int],
    current: Mapping[str, str] | None = None,
    *,
    headroom: float = HEADROOM,
) -> Plan:
    """Place replicas.

    Args:
        cards: what there is, such as after one has vanished.
        loads: one of each model.
        wanted: replicas by model.
        current: replica to card, as they run now; replicas on cards that are gone are placed anew.
        headroom: part of each card that nobody is given.

    Raises:
        BadInput: two cards of one name, an absurd figure, or a model of which nothing is known.
    """
    check_cards(cards, headroom)
    known = {load.model: load for load in loads}
    if missing := sorted(set(wanted) - set(known)):
        fix = "run `reelmesh models profile` for it, or give its memory in model.yaml"
        raise BadInput("nothing is known of its memory", field=missing[0], fix=fix)
    packing = Packing({card.name: card for card in cards}, known, replica_names(wanted), headroom)
    packing.keep(current or {})
    packing.place()
    return packing.plan(current or {})


class Packing:
    """One run of pack.

    Args:
        cards: by name.
        loads: by model.
        models: replica to model, of all that are wanted.
        headroom: of each card.
    """

    def __init__(
        self, cards: Mapping[str, Card], loads: Mapping[str, Load], models: Mapping[str, str], headroom: float
    ) -> None:
        self.cards, self.loads, self.models, self.headroom = cards, loads, models, headroom
        self.rooms = rooms(cards, headroom)
        self.placed: dict[str, str] = {}
        self.unplaced: list[Unplaced] = []
        self._on_node: dict[str, Counter[str]] = {card.node: Counter() for card in cards.values()}

    def load(self, replica: str) -> Load:
        """Of a replica."""
        return self.loads[self.models[replica]]

    def keep(self, current: Mapping[str, str]) -> None:
        """Leave those that run where they are, as far as they fit; what has to go is small."""
        staying = [replica for replica, card in current.items() if replica in self.models and card in self.rooms]
        for replica in sorted(staying, key=self._order):
            if self.rooms[current[replica]].takes(self.load(replica)):
                self._put(replica, current[replica])

    def place(self) -> None:
        """Find a card for everything that has none."""
        for replica in sorted((name for name in self.models if name not in self.placed), key=self._order):
            load = self.load(replica)
            card = self._best(load) or self._cleared(load)
            if card is None:
                self.unplaced.append(self._unplaced(replica, load))
            else:
                self._put(replica, card)

    def plan(self, current: Mapping[str, str]) -> Plan:
        """What came of it."""
        moves = [
            Move(replica, current[replica], card, self.load(replica).weights_mib)
            for replica, card in sorted(self.placed.items())
            if replica in current and current[replica] != card
        ]
        return Plan(
            cards=self.cards,
            loads=self.loads,
            placed=dict(sorted(self.placed.items())),
            models=self.models,
            unplaced=self.unplaced,
            moves=moves,
            started=sorted(set(self.placed) - set(current)),
            stopped=sorted(set(current) - set(self.placed)),
            headroom=self.headroom,
        )

    def _order(self, replica: str) -> tuple[int, float, str]:
        load = self.load(replica)
        return _RANK[load.pace], -load.whole_mib, replica

    def _put(self, replica: str, card: str) -> None:
        load = self.load(replica)
        self.rooms[card].put(replica, load)
        self.placed[replica] = card
        self._on_node[self.cards[card].node][load.model] += 1

    def _take(self, replica: str) -> None:
        card = self.placed.pop(replica)
        load = self.rooms[card].remove(replica)
        self._on_node[self.cards[card].node][load.model] -= 1

    def _best(self, load: Load, but: str = "") -> str | None:
        """The card that suits best, of those that take it."""
        fitting = [room for name, room in self.rooms.items() if name != but and room.takes(load)]
        return min(fitting, key=lambda room: self._cost(room, load)).card.name if fitting else None

    def _cost(self, room: Room, load: Load) -> tuple[int, int, float, str]:
        """Far from neighbours, beside replicas of the same model, and much room left over are worse."""
        there = self._on_node[room.card.node]
        near = sum(1 for model in load.near if there[model])
        return -near, there[load.model], -room.lacks_mib(load), room.card.name

    def _cleared(self, load: Load) -> str | None:
        """The card that takes it once one smaller replica has moved; of several, the one that moves the least."""
        found: tuple[float, str, str, str] | None = None
        for name, room in self.rooms.items():
            for replica, other in list(room.held.items()):
                if other.weights_mib >= load.weights_mib or (found and other.weights_mib >= found[0]):
                    continue
                if (target := self._elsewhere(room, replica, other, load)) is not None:
                    found = (other.weights_mib, name, replica, target)
        if found is None:
            return None
        _, name, replica, target = found
        self._take(replica)
        self._put(replica, target)
        return name

    def _elsewhere(self, room: Room, replica: str, other: Load, load: Load) -> str | None:
        """Where a replica could go so that its card takes the load; None where that does not help."""
        room.remove(replica)
        try:
            return self._best(other, but=room.card.name) if room.takes(load) else None
        finally:
            room.put(replica, other)

    def _unplaced(self, replica: str, load: Load) -> Unplaced:
        needed = load.whole_mib / (1.0 - self.headroom)
        largest = max((card.memory_mib for card in self.cards.values()), default=0.0)
        if needed > largest:
            has = f"the largest has {largest:,.0f}" if self.cards else "there is none"
            why = f"needs a card of {needed:,.0f} MiB, of which {self.headroom:.0%} are kept free, and {has}"
            change = "add one, or serve the model in fewer bits or with smaller limits"
            if load.whole_mib <= SPARE * largest:
                change = f"keep {1.0 - load.whole_mib / largest:.1%} free instead, or {change}"
            return Unplaced(replica, why, change, (needed - largest) * (1.0 - self.headroom))
        allowed = [room for room in self.rooms.values() if not room.forbids(load)]
        one_more = f"add a card of {needed:,.0f} MiB"
        if not allowed:
            room = min(self.rooms.values(), key=lambda room: (room.lacks_mib(load), room.card.name))
            return Unplaced(replica, f"{room.card.name} is not for it: {room.forbids(load)}", one_more, float("inf"))
        room = min(allowed, key=lambda room: (room.lacks_mib(load), room.card.name))
        lacks = room.lacks_mib(load)
        why = f"{room.card.name} comes closest and lacks {lacks:,.0f} MiB"
        return Unplaced(replica, why, self._smaller(room, load, lacks) or one_more, lacks)

    def _smaller(self, room: Room, load: Load, lacks: float) -> str:
        """A change to what is on a card, if a small one would do."""
        if load.peak_mib > lacks and load.pace == "quick":
            return f"let its requests take {lacks:,.0f} MiB less on {room.card.name}: smaller sizes or batches"
        leaving = [name for name, other in room.held.items() if other.weights_mib >= lacks]
        smallest = min(leaving, key=lambda name: room.held[name].weights_mib, default=None)
        return f"run one replica of {self.models[smallest]} less" if smallest else ""
