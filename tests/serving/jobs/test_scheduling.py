"""The policy by rules, and by a simulation of an overloaded studio that runs the very same code."""

import heapq
import itertools
import random
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence

import pytest

from serving.jobs.scheduling import OBJECTIVES_S, SHARES, Head, charge, choose, effective_deadline
from serving.jobs.types import Lane

SLOTS = 16
HORIZON_S = 2 * 3600.0
RUN_S = {Lane.CRITICAL: 8.0, Lane.HIGH: 30.0, Lane.MEDIUM: 60.0, Lane.LOW: 45.0}
LOAD = {Lane.CRITICAL: 0.2, Lane.HIGH: 0.5, Lane.MEDIUM: 0.8, Lane.LOW: 0.5}
"""Work that arrives per second and slot: twice what can be done."""


def head(lane: Lane, created_at: float = 0.0, tenant: str = "a", predicted_s: float = 10.0, name: str = "") -> Head:
    return Head(name or f"{lane}-{tenant}-{created_at}", lane, tenant, created_at, predicted_s)


def arrivals(seed: int, load: dict[Lane, float] = LOAD, tenants: Sequence[str] = ("a", "b", "c")) -> list[Head]:
    chance, jobs = random.Random(seed), []
    for lane, part in load.items():
        at = 0.0
        while part and (at := at + chance.expovariate(part * SLOTS / RUN_S[lane])) < HORIZON_S:
            cost = RUN_S[lane] * chance.uniform(0.5, 1.5)
            jobs.append(Head(f"{lane}-{len(jobs)}", lane, chance.choice(tenants), at, cost))
    return sorted(jobs, key=lambda job: job.created_at)


class ByPolicy:
    """A line that asks the policy."""

    def __init__(self) -> None:
        self.waiting: dict[tuple[Lane, str], deque[Head]] = {}
        self.shares: dict[tuple[str, str], float] = {}

    def add(self, job: Head) -> None:
        self.waiting.setdefault((job.lane, job.tenant), deque()).append(job)

    def take(self, now: float) -> Head | None:
        heads = [queue[0] for queue in self.waiting.values()]
        chosen = choose(heads, self.shares, now)
        if chosen is not None:
            self.shares.update(charge(chosen, heads, self.shares))
            queue = self.waiting[chosen.lane, chosen.tenant]
            queue.popleft()
            if not queue:
                del self.waiting[chosen.lane, chosen.tenant]
        return chosen


class FirstInFirstOut:
    """A line that knows nothing of lanes."""

    def __init__(self) -> None:
        self.waiting: deque[Head] = deque()

    def add(self, job: Head) -> None:
        self.waiting.append(job)

    def take(self, now: float) -> Head | None:
        return self.waiting.popleft() if self.waiting else None


def simulate(jobs: Iterable[Head], line: ByPolicy | FirstInFirstOut, slots: int = SLOTS) -> dict[str, float]:
    """When each job that started within the horizon did."""
    coming, started = deque(jobs), dict[str, float]()
    busy: list[float] = []
    now = 0.0
    while now < HORIZON_S:
        while coming and coming[0].created_at <= now:
            line.add(coming.popleft())
        while busy and busy[0] <= now:
            heapq.heappop(busy)
        while len(busy) < slots and (job := line.take(now)) is not None:
            started[job.job_id] = now
            heapq.heappush(busy, now + job.cost_s)
        times = [*busy[:1], *([coming[0].created_at] if coming else [])]
        if not times:
            break
        now = min(times)
    return started


def waits(jobs: Iterable[Head], started: dict[str, float]) -> dict[Lane, list[float]]:
    """Sorted; a job that never started has waited until the horizon."""
    found: dict[Lane, list[float]] = defaultdict(list)
    for job in jobs:
        found[job.lane].append(started.get(job.job_id, HORIZON_S) - job.created_at)
    return {lane: sorted(values) for lane, values in found.items()}


def percentile(values: Sequence[float], part: float) -> float:
    return values[min(len(values) - 1, int(part * len(values)))]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_at_twice_the_load_the_urgent_lanes_hold_their_objectives(seed: int) -> None:
    jobs = arrivals(seed)
    found = waits(jobs, simulate(jobs, ByPolicy()))
    assert percentile(found[Lane.CRITICAL], 0.99) <= OBJECTIVES_S[Lane.CRITICAL]
    assert percentile(found[Lane.HIGH], 0.99) <= OBJECTIVES_S[Lane.HIGH]


def test_at_twice_the_load_first_in_first_out_breaks_them() -> None:
    jobs = arrivals(1)
    found = waits(jobs, simulate(jobs, FirstInFirstOut()))
    assert percentile(found[Lane.CRITICAL], 0.5) > OBJECTIVES_S[Lane.CRITICAL]
    assert percentile(found[Lane.HIGH], 0.5) > OBJECTIVES_S[Lane.HIGH]


@pytest.mark.parametrize("flooded", [Lane.CRITICAL, Lane.HIGH, Lane.MEDIUM])
def test_no_lane_starves_however_much_urgent_work_there_is(flooded: Lane) -> None:
    jobs = arrivals(4, {**dict.fromkeys(Lane, 0.2), flooded: 2.0})
    started = simulate(jobs, ByPolicy())
    everything = sum(job.cost_s for job in jobs if job.job_id in started)
    for lane, share in SHARES.items():
        work = sum(job.cost_s for job in jobs if job.lane is lane and job.job_id in started)
        assert work >= 0.9 * min(share, 0.2) * everything, lane
        when = sorted(started[job.job_id] for job in jobs if job.lane is lane and job.job_id in started)
        assert max(b - a for a, b in itertools.pairwise(when)) < 900, "its jobs start all the time"


def test_below_the_capacity_every_lane_holds_its_objective() -> None:
    jobs = arrivals(5, {lane: part * 0.42 for lane, part in LOAD.items()})
    for lane, values in waits(jobs, simulate(jobs, ByPolicy())).items():
        assert percentile(values, 0.99) <= OBJECTIVES_S[lane]


def test_tenants_share_a_lane_by_cost_and_not_by_number() -> None:
    films = [Head(f"film-{n}", Lane.HIGH, "films", 0.0, 600.0) for n in range(400)]
    lines = [Head(f"line-{n}", Lane.HIGH, "lines", 0.0, 6.0) for n in range(40_000)]
    started = simulate([*films, *lines], ByPolicy())
    work = {who: sum(j.cost_s for j in jobs if j.job_id in started) for who, jobs in (("f", films), ("l", lines))}
    assert work["f"] == pytest.approx(work["l"], rel=0.02)


def test_a_tenant_that_comes_later_neither_waits_for_the_others_backlog_nor_gets_what_it_missed() -> None:
    early = [Head(f"early-{n}", Lane.LOW, "early", 0.0, 10.0) for n in range(20_000)]
    late = [Head(f"late-{n}", Lane.LOW, "late", 3600.0, 10.0) for n in range(20_000)]
    started = simulate([*early, *late], ByPolicy())
    assert started["late-0"] - 3600 < 20
    after = [name for name, at in started.items() if at >= 3600]
    assert sum(name.startswith("late") for name in after) / len(after) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("seed", range(30))
def test_whatever_waits_one_of_the_heads_is_chosen_and_nothing_is_lost(seed: int) -> None:
    chance = random.Random(seed)
    line, expected = ByPolicy(), set()
    for number in range(chance.randint(1, 60)):
        job = head(
            chance.choice(list(Lane)), chance.uniform(-1e5, 10), chance.choice("abcd"), chance.choice([0, 1, 900.0])
        )
        job = Head(str(number), job.lane, job.tenant, job.created_at, job.predicted_s)
        line.add(job)
        expected.add(job.job_id)
    taken = [job.job_id for _ in range(len(expected)) if (job := line.take(10.0)) is not None]
    assert sorted(taken) == sorted(expected)
    assert line.take(10.0) is None
    assert all(value >= 0 for value in line.shares.values())


@pytest.mark.parametrize(
    ("heads", "first"),
    [
        pytest.param([head(Lane.LOW), head(Lane.CRITICAL, 50)], Lane.CRITICAL, id="a fresh urgent job goes first"),
        pytest.param([head(Lane.LOW, -9000), head(Lane.HIGH, 100)], Lane.HIGH, id="lateness of a low lane is bounded"),
        pytest.param([head(Lane.MEDIUM, -180), head(Lane.HIGH, 99)], Lane.MEDIUM, id="what is about to be late is not"),
        pytest.param([head(Lane.LOW, 0), head(Lane.MEDIUM, 0)], Lane.MEDIUM, id="of the same age the urgent one"),
        pytest.param([head(Lane.MEDIUM, -900), head(Lane.CRITICAL, 100)], Lane.CRITICAL, id="critical before the late"),
    ],
)
def test_between_lanes_the_earliest_bounded_deadline_goes_first(heads: list[Head], first: Lane) -> None:
    chosen = choose(heads, {}, now=100.0)
    assert chosen is not None
    assert chosen.lane is first


def test_lateness_is_bounded_but_for_critical_jobs() -> None:
    assert effective_deadline(Lane.CRITICAL, 0, 1000) == 30
    assert effective_deadline(Lane.HIGH, 0, 1000) == 1030
    assert effective_deadline(Lane.HIGH, 990, 1000) == 1110


def test_a_lane_is_not_owed_more_than_two_starts() -> None:
    urgent, low = head(Lane.CRITICAL, predicted_s=1e6), head(Lane.LOW, predicted_s=10)
    shares: dict[tuple[str, str], float] = {}
    for _ in range(5):
        shares.update(charge(urgent, [urgent, low], shares))
    assert shares["credit", Lane.LOW] == 20
    taken = []
    for _ in range(3):
        chosen = choose([urgent, low], shares, 0.0)
        assert chosen is not None
        taken.append(chosen.lane)
        shares.update(charge(chosen, [urgent, low], shares) if chosen == low else {})
    assert taken == [Lane.LOW, Lane.LOW, Lane.CRITICAL]


def test_the_same_heads_in_any_order_give_the_same_choice() -> None:
    heads = [head(lane, created, tenant) for lane in Lane for created in (0.0, 5.0) for tenant in "ab"]
    assert choose(heads, {}, 500.0) == choose(heads[::-1], {}, 500.0)
