"""Plan: which replica runs on which card, what changes, and what does not fit; made by pack, shown by `reelmesh plan`.

The one invariant: a plan holds every replica that is wanted, either on a card or among those that do not fit.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from serving.errors import BadInput
from serving.placement.cards import HEADROOM, Card, Load, check_cards
from serving.placement.room import Room, rooms


@dataclass(frozen=True, slots=True)
class Unplaced:
    """A replica for which there is no room.

    Attributes:
        replica: its name.
        why: what keeps it from the card that comes closest, in one sentence.
        change: the smallest change that would let it fit.
        lacks_mib: missing on that card; infinite where rules forbid all of them.
    """

    replica: str
    why: str
    change: str
    lacks_mib: float


@dataclass(frozen=True, slots=True)
class Move:
    """A replica that changes its card."""

    replica: str
    source: str
    target: str
    weights_mib: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The result.

    Attributes:
        cards: all there are, by name.
        loads: of every model, by name.
        placed: replica to card.
        models: replica to model, of all that are wanted.
        unplaced: what does not fit.
        moves: of replicas that ran elsewhere.
        started: replicas that are new.
        stopped: replicas that are not wanted any more, or have no room.
        headroom: part of each card that is kept free.
    """

    cards: Mapping[str, Card]
    loads: Mapping[str, Load]
    placed: Mapping[str, str]
    models: Mapping[str, str]
    unplaced: Sequence[Unplaced]
    moves: Sequence[Move]
    started: Sequence[str]
    stopped: Sequence[str]
    headroom: float

    @property
    def moved_mib(self) -> float:
        """Weights that must be loaded again."""
        return sum(move.weights_mib for move in self.moves)

    def rooms(self) -> dict[str, Room]:
        """Every card with what is on it."""
        return filled(self.cards, self.loads, self.models, self.placed, self.headroom)


def filled(
    cards: Mapping[str, Card],
    loads: Mapping[str, Load],
    models: Mapping[str, str],
    placed: Mapping[str, str],
    headroom: float,
) -> dict[str, Room]:
    """Rooms with replicas in them, whether they fit or not."""
    found = rooms(cards, headroom)
    for replica, card in placed.items():
        found[card].put(replica, loads[models[replica]])
    return found


def check_placed(
    cards: Sequence[Card],
    loads: Iterable[Load],
    placed: Mapping[str, str],
    models: Mapping[str, str],
    headroom: float = HEADROOM,
) -> None:
    """Refuse an assignment that somebody wrote by hand and that cannot be.

    Raises:
        BadInput: a card or model that is not there, more than a card has, two replicas on one slice, or neighbours that
            shall not be.
    """
    check_cards(cards, headroom)
    by_name, known = {card.name: card for card in cards}, {load.model: load for load in loads}
    there = rooms(by_name, headroom)
    for replica, name in placed.items():
        if name not in there:
            raise BadInput(
                f"there is no card {name!r}", field=replica, fix=f"use one of {', '.join(sorted(there))[:200]}"
            )
        if models.get(replica) not in known:
            raise BadInput("nothing is known of its model's memory", field=replica, fix="run `reelmesh models profile`")
        room, load = there[name], known[models[replica]]
        if rule := room.forbids(load):
            others = ", ".join(room.held)[:200]
            raise BadInput(f"cannot share {name} with {others}: {rule}", field=replica, fix="place it elsewhere")
        if (lacks := room.lacks_mib(load)) > 0:
            raise BadInput(f"{name} lacks {lacks:,.0f} MiB for it", field=replica, fix="place it elsewhere")
        room.put(replica, load)
