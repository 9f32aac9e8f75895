"""Which idle models leave a card, or the host's memory, when another wants their place; pure.

The one invariant: what is in use, or was announced for the next moments, never leaves.

A resident's worth is what it would cost to have it back, by how likely it is wanted: seconds of reloading times uses a
second, for each MiB that it holds (the greedy-dual rule for objects of several sizes and costs: Cao and Irani, 1997;
frequency as Cherkasova, 1998, added it). What is worth the least for its size goes first.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

HALF_LIFE_S: Final = 1800.0
"""After which a use counts half; scenes of a film come back within the hour."""
SOON_S: Final = 60.0
"""What is announced for the next so many seconds stays."""
THRASH_S: Final = 300.0
"""A model that is wanted again so soon after it left should have stayed."""
THRASH_TIMES: Final = 3
"""So often within an hour is thrash."""
HOUR_S: Final = 3600.0


@dataclass(slots=True)
class Use:
    """How often a model is used: a count in which every use fades by half each :data:`HALF_LIFE_S`."""

    weight: float = 0.0
    at: float = 0.0
    announced: float = math.inf
    left: float = -math.inf
    returns: deque[float] = field(default_factory=deque)

    def used(self, now: float) -> None:
        """Count a use; what was announced has come."""
        self.weight = self.faded(now) + 1.0
        self.at = now
        self.announced = math.inf

    def faded(self, now: float) -> float:
        """The count as of now."""
        return self.weight * math.exp2((self.at - now) / HALF_LIFE_S)

    def rate(self, now: float) -> float:
        """Uses a second that are to be expected: the faded count by the mean age of what it counts."""
        return self.faded(now) * math.log(2.0) / HALF_LIFE_S


@dataclass(frozen=True, slots=True)
class Resident:
    """Something that may leave.

    Attributes:
        name: of the replica.
        model: of it.
        mib: that it would free.
        reload_s: to have it back from where it would go.
        in_use: whether a request runs or waits for it.
    """

    name: str
    model: str
    mib: float
    reload_s: float
    in_use: bool = False


class Uses:
    """The uses of all models of a node, and who left and came back too soon."""

    def __init__(self) -> None:
        self._of: dict[str, Use] = {}

    def used(self, model: str, now: float) -> None:
        """A request came."""
        self._use(model).used(now)

    def announce(self, model: str, at: float) -> None:
        """A graph is going to need it at this time: the earliest that was announced counts."""
        use = self._use(model)
        use.announced = min(use.announced, at)

    def left(self, model: str, now: float) -> None:
        """It was evicted."""
        self._use(model).left = now

    def came_back(self, model: str, now: float) -> bool:
        """It was loaded; whether that was the last straw, and the model thrashes."""
        use = self._use(model)
        if now - use.left <= THRASH_S:
            use.returns.append(now)
        while use.returns and now - use.returns[0] > HOUR_S:
            use.returns.popleft()
        return len(use.returns) >= THRASH_TIMES

    def worth(self, resident: Resident, now: float) -> float:
        """Seconds of reloading that it saves in a second, for each MiB; infinite if it must stay."""
        use = self._use(resident.model)
        if resident.in_use or use.announced <= now + SOON_S:
            return math.inf
        rate = use.rate(now)
        if use.announced < math.inf:
            rate = max(rate, 1.0 / (use.announced - now))
        return rate * resident.reload_s / max(resident.mib, 1.0)

    def thrashing(self, now: float) -> list[str]:
        """Models that left and came back too often within the hour."""
        return sorted(
            model for model, use in self._of.items() if sum(now - at <= HOUR_S for at in use.returns) >= THRASH_TIMES
        )

    def _use(self, model: str) -> Use:
        return self._of.setdefault(model, Use())


Enough = Callable[[Sequence[Resident]], bool]
"""Whether it will do if these leave; still so if more do."""


def leaving(residents: Sequence[Resident], enough: Enough, uses: Uses, now: float) -> list[Resident] | None:
    """Who leaves; None where not even all who may would do.

    The least worthy first; then whoever turned out not to be needed stays, the worthiest of them first.
    """
    worth = {resident.name: uses.worth(resident, now) for resident in residents}
    going: list[Resident] = []
    for resident in sorted(residents, key=lambda one: (worth[one.name], -one.mib, one.name)):
        if worth[resident.name] == math.inf or enough(going):
            break
        going.append(resident)
    if not enough(going):
        return None
    for resident in reversed(list(going)):
        others = [one for one in going if one is not resident]
        if enough(others):
            going = others
    return going


def frees(mib: float) -> Enough:
    """So much memory is enough."""
    return lambda going: sum(one.mib for one in going) >= mib


def next_wanted(graph: Sequence[str], stage: int, seconds: Mapping[str, float], now: float) -> dict[str, float]:
    """When the models of a graph's later stages are going to be needed, by what earlier stages take.

    Args:
        graph: models by stage.
        stage: that begins now.
        seconds: of one run of each model.
        now: the clock.
    """
    found: dict[str, float] = {}
    at = now
    for index in range(stage, len(graph)):
        found.setdefault(graph[index], at)
        at += seconds.get(graph[index], 0.0)
    return found
