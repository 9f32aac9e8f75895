"""Which waiting job runs next: the policy alone, without a database; used by the line and by its forecast.

The one invariant: a lane with waiting jobs gets at least its share of all work that is started, and beyond that
a job of a more urgent lane is never passed over because a less urgent one is late.

Between lanes: earliest deadline first (Liu and Layland, "Scheduling Algorithms for Multiprogramming in a
Hard-Real-Time Environment", JACM 20(1), 1973), where a job's deadline is its submission plus its lane's objective.
Plain EDF fails under overload: every lane is late, the latest are the least urgent, and they drag the urgent ones
along. So lateness counts only so far: a late job never passes a critical one, and passes one of the lane above only
while that has three quarters of its objective left. What is later than that waits for what is left over, or for its
lane's share.

Inside a lane: start-time fair queueing between tenants (Goyal, Vin and Cheng, "Start-Time Fair Queueing",
IEEE/ACM ToN 5(5), 1997). Each start is charged with the job's predicted cost, so who asks for a film waits as long as
who asks for the thousand lines that cost the same, and nobody saves up by being away.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from serving.jobs.types import Lane

OBJECTIVES_S: Final[Mapping[Lane, float]] = {Lane.CRITICAL: 30.0, Lane.HIGH: 120.0, Lane.MEDIUM: 300.0, Lane.LOW: 900.0}
"""How long a job of each lane should wait at most."""
SHARES: Final[Mapping[Lane, float]] = {Lane.CRITICAL: 0.0, Lane.HIGH: 0.1, Lane.MEDIUM: 0.08, Lane.LOW: 0.04}
"""The part of all started work that a lane with waiting jobs gets, however urgent the others are."""
LEAST_COST_S: Final = 1.0
"""What a start is charged with at least: a job of unknown cost is not free."""
NEAREST_S: Final[Mapping[Lane, float]] = {
    Lane.HIGH: OBJECTIVES_S[Lane.CRITICAL],
    Lane.MEDIUM: OBJECTIVES_S[Lane.HIGH] * 3 / 4,
    Lane.LOW: OBJECTIVES_S[Lane.MEDIUM] * 3 / 4,
}
"""How near a lane's deadline may come, seen from now, however late its job is."""
_RANK: Final = {lane: rank for rank, lane in enumerate(Lane)}
_CREDIT: Final = "credit"
CLOCK: Final = "clock"

Key = tuple[str, str]
Shares = Mapping[Key, float]
"""What the policy remembers, in seconds of work. ``(lane, tenant)``: the tenant's virtual finish time in the lane;
``("clock", lane)``: the lane's virtual time; ``("credit", lane)``: work that the lane's share entitles it to.
"""


@dataclass(frozen=True, slots=True)
class Head:
    """The oldest waiting job of one tenant in one lane.

    Attributes:
        created_at: Unix seconds.
        predicted_s: seconds of CPU and GPU that it will take; 0 when unknown.
    """

    job_id: str
    lane: Lane
    tenant: str
    created_at: float
    predicted_s: float = 0.0

    @property
    def cost_s(self) -> float:
        """What its start is charged with."""
        return max(self.predicted_s, LEAST_COST_S)


def choose(heads: Iterable[Head], shares: Shares, now: float) -> Head | None:
    """The job to start next; None when nothing waits.

    Args:
        heads: the oldest waiting job of each tenant in each lane, in any order.
        shares: what the policy remembers of earlier starts.
        now: Unix seconds.
    """
    heads = list(heads)
    firsts = _first_of_each_lane(heads, shares)
    if not firsts:
        return None
    # A lane is as urgent as its oldest job, whosesoever turn it is in it.
    oldest = {lane: min(head.created_at for head in heads if head.lane is lane) for lane in firsts}
    owed = [lane for lane, head in firsts.items() if shares.get((_CREDIT, lane), 0.0) >= head.cost_s]
    return firsts[min(owed or firsts, key=lambda lane: (effective_deadline(lane, oldest[lane], now), _RANK[lane]))]


def effective_deadline(lane: Lane, created_at: float, now: float) -> float:
    """When a job of the lane should have started, its lateness bounded by :data:`NEAREST_S`; Unix seconds."""
    deadline = created_at + OBJECTIVES_S[lane]
    return max(deadline, now + NEAREST_S[lane]) if lane in NEAREST_S else deadline


def start_tag(head: Head, shares: Shares) -> float:
    """The virtual time at which the job's tenant is next in its lane."""
    return max(shares.get((head.lane, head.tenant), 0.0), shares.get((CLOCK, head.lane), 0.0))


def charge(started: Head, heads: Iterable[Head], shares: Shares) -> dict[Key, float]:
    """What changes in ``shares`` when a job starts.

    Args:
        started: the job that :func:`choose` named.
        heads: those it was chosen from.
        shares: before the start.
    """
    tag, cost_s = start_tag(started, shares), started.cost_s
    changes: dict[Key, float] = {
        (started.lane, started.tenant): tag + cost_s,
        (CLOCK, started.lane): tag,
    }
    waiting = _first_of_each_lane(heads, shares)
    for lane, share in SHARES.items():
        before = shares.get((_CREDIT, lane), 0.0)
        if lane is started.lane:
            credit = max(0.0, before - cost_s)
        elif lane in waiting:
            # No more than two starts are saved up, or a quiet hour would end in a burst.
            credit = max(before, min(before + share * cost_s, 2 * waiting[lane].cost_s))
        else:
            credit = 0.0
        if credit != before:
            changes[_CREDIT, lane] = credit
    return changes


def _first_of_each_lane(heads: Iterable[Head], shares: Shares) -> dict[Lane, Head]:
    firsts: dict[Lane, tuple[float, float, str, Head]] = {}
    for head in heads:
        ranked = (start_tag(head, shares), head.created_at, head.job_id, head)
        if head.lane not in firsts or ranked[:3] < firsts[head.lane][:3]:
            firsts[head.lane] = ranked
    return {lane: ranked[3] for lane, ranked in firsts.items()}
