"""Card and Load: what there is and what is wanted, in MiB; the words of every decision about memory.

The one invariant: figures that exist are finite, not negative, and below what any card could have, so that no sum of
them goes astray.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from serving.errors import BadInput

MOST_MIB: Final = 2.0**24
"""16 TiB: what is above is a mistake of units."""
HEADROOM: Final = 0.08
"""Part of a card that nobody is given: CUDA contexts (300 to 500 MiB a process) and fragments of the allocator."""

Pace = Literal["quick", "long", "any"]
"""Whether somebody waits for the answer (speech, a subtitle), whether a call takes a card for minutes (a clip), or
neither."""


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU, or a slice of one (MIG), that replicas can be placed on.

    Attributes:
        name: unique, such as ``node-a/0``, or ``node-a/0/1g.18gb-3`` of a slice.
        node: the machine that it is in.
        memory_mib: all that it has.
        kind: as its driver names it, such as ``NVIDIA L4``.
        is_slice: whether it is a MIG slice; one process alone uses it, since the driver hands it out whole.
    """

    name: str
    node: str
    memory_mib: float
    kind: str = ""
    is_slice: bool = False

    def __post_init__(self) -> None:
        _check(self.memory_mib, f"{self.name}: memory_mib", least=1.0)

    def usable_mib(self, headroom: float = HEADROOM) -> float:
        """What may be given to replicas."""
        return self.memory_mib * (1.0 - headroom)


@dataclass(frozen=True, slots=True)
class Load:
    """What one replica of a model takes of a card.

    Attributes:
        model: its name.
        weights_mib: that lie on the card as long as the replica does.
        peak_mib: most that a request takes beside them.
        pace: quick replicas never wait for memory, and are kept away from long ones.
        near: models that hand big arrays over, best on the same node.
    """

    model: str
    weights_mib: float
    peak_mib: float
    pace: Pace = "any"
    near: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name in ("weights_mib", "peak_mib"):
            _check(getattr(self, name), f"{self.model}: {name}")
        if self.pace not in get_args(Pace):
            words = ", ".join(get_args(Pace))
            raise BadInput(f"there is no pace {self.pace!r}", field=f"{self.model}: pace", fix=f"use one of {words}")

    @property
    def whole_mib(self) -> float:
        """What it needs where it is alone."""
        return self.weights_mib + self.peak_mib


def check_cards(cards: Sequence[Card], headroom: float = HEADROOM) -> None:
    """Refuse cards of one name, and a headroom that leaves nothing.

    Raises:
        BadInput: names it.
    """
    if twice := [name for name, count in Counter(card.name for card in cards).items() if count > 1]:
        raise BadInput("two cards have this name", field=twice[0], fix="give every card a name of its own")
    if not 0.0 <= headroom <= 0.5:  # noqa: PLR2004  half a card
        raise BadInput(f"{headroom} is no part of a card", field="headroom", fix="use 0 to 0.5; 0.08 by default")


def replica_names(wanted: Mapping[str, int]) -> dict[str, str]:
    """``sdxl#0`` to ``sdxl``, for as many replicas as are wanted of each model.

    Raises:
        BadInput: a number that is none.
    """
    for model, count in wanted.items():
        if not 0 <= count <= 10_000:  # noqa: PLR2004
            raise BadInput(f"{count} replicas", field=model, fix="use 0 to 10,000")
    return {f"{model}#{index}": model for model, count in sorted(wanted.items()) for index in range(count)}


def _check(value: float, field: str, least: float = 0.0) -> None:
    if not math.isfinite(value) or not least <= value <= MOST_MIB:
        fix = f"give MiB between {least:g} and {MOST_MIB:,.0f}"
        raise BadInput(f"{value} is no amount of memory", field=field, fix=fix)
