"""Forecast: who runs when, told by running the policy ahead over what waits; used by the store for front ends.

The one invariant: places come from the policy that the workers follow and times from stages that ran: nothing here is a
guess of its own. Looking ahead is bounded, and done anew no more than its cost allows.
"""

import asyncio
import heapq
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from serving.jobs.database import Database
from serving.jobs.scheduling import Head, Shares, charge, choose
from serving.jobs.shares import shares_of
from serving.jobs.stage_times import Measured, measure, stages_of
from serving.jobs.states import WORKING
from serving.jobs.tables import jobs, workers
from serving.jobs.types import JobState, Lane

AHEAD: Final = 1_000
"""Starts that the policy is run ahead at most; what lies further back keeps the order it came in."""
LOOKS: Final = 25_000
"""Heads of lines that the policy is shown at most: with many tenants, each start is chosen among as many lines."""
MEASURED_S: Final = 60.0
"""How long what was measured serves."""
FRESH_S: Final = 15.0
"""A worker that was seen within this time counts."""
_DUTY: Final = 10.0
"""A forecast serves for this many times what it took."""
_SHORT: Final = 100
"""A forecast of a line no longer than this is made anew for everybody who asks."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job stands in line.

    Attributes:
        position: 1 for the next job to start.
        wait_s: until it starts; None where nothing of its kind was ever measured.
    """

    position: int
    wait_s: float | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """One waiting job, and the seconds that it will run; None where nothing was ever measured."""

    head: Head
    run_s: float | None = None


def foresee(waiting: Sequence[Waiting], shares: Shares, free_at: Sequence[float], now: float) -> dict[str, Place]:
    """Run the policy ahead.

    Args:
        waiting: in the order they came.
        shares: what the policy remembers.
        free_at: when each slot of the workers is free; Unix seconds, at least one.
        now: Unix seconds.
    """
    run_s = {job.head.job_id: job.run_s for job in waiting}
    lines: dict[tuple[Lane, str], deque[Head]] = {}
    for job in waiting:
        lines.setdefault((job.head.lane, job.head.tenant), deque()).append(job.head)
    remembered, slots, places = dict(shares), list(free_at), dict[str, Place]()
    heapq.heapify(slots)

    def start(head: Head) -> None:
        at, takes_s = max(now, slots[0]), run_s[head.job_id]
        places[head.job_id] = Place(len(places) + 1, None if takes_s is None else at - now)
        heapq.heapreplace(slots, at + (takes_s or 0.0))

    for _ in range(min(AHEAD, len(waiting), 1 + LOOKS // max(1, len(lines)))):
        heads = [line[0] for line in lines.values()]
        chosen = choose(heads, remembered, max(now, slots[0]))
        if chosen is None:
            break
        remembered.update(charge(chosen, heads, remembered))
        start(chosen)
        line = lines[chosen.lane, chosen.tenant]
        line.popleft()
        if not line:
            del lines[chosen.lane, chosen.tenant]
    for job in waiting:
        if job.head.job_id not in places:
            start(job.head)
    return places


class Forecast:
    """The line as front ends tell of it.

    Args:
        database: opened, with its tables made.
        concurrent_jobs: jobs one worker runs at a time.
    """

    def __init__(self, database: Database, *, concurrent_jobs: int) -> None:
        self._database = database
        self._concurrent_jobs = concurrent_jobs
        self._places: dict[str, Place] = {}
        self._end = Place(1, None)
        self._first_s = 0.0
        self._measured, self._measured_at = Measured(), -math.inf
        self._made_at = -math.inf
        self._took_s = 0.0
        self._making = asyncio.Lock()

    async def place(self, job_id: str) -> Place:
        """Where a waiting job stands; at the end of the line if it came after the last look ahead."""
        await self._refresh()
        if (place := self._places.get(job_id)) is not None:
            return place
        return self._end

    async def cost_s(self, job_type: str) -> float:
        """Seconds of CPU and GPU that jobs of the type took on average; 0 when none was measured."""
        await self._refresh()
        return self._measured.cost_s.get(job_type, 0.0)

    async def room_in_s(self) -> int:
        """When the next job leaves the line, which makes room for another; whole seconds, at least 1."""
        await self._refresh()
        return max(1, math.ceil(self._first_s))

    async def _refresh(self) -> None:
        asked_at = time.monotonic()
        async with self._making:
            # Who waited for somebody else's forecast that began after the question has the answer.
            if self._made_at >= asked_at:
                return
            if len(self._places) > _SHORT and time.monotonic() < self._made_at + _DUTY * self._took_s:
                return
            began = time.monotonic()
            # A mesh of which nothing is known yet learns as soon as it can.
            if not self._measured.stage_s or began >= self._measured_at + MEASURED_S:
                self._measured, self._measured_at = await self._database.run(measure), began
            self._places = await self._database.run(self._look)
            waits = [place.wait_s for place in self._places.values() if place.wait_s is not None]
            self._end = Place(len(self._places) + 1, max(waits, default=None))
            self._first_s = min(waits, default=0.0)
            self._made_at, self._took_s = began, time.monotonic() - began

    def _look(self, connection: sa.Connection) -> dict[str, Place]:
        now, measured = time.time(), self._measured
        columns = ("id", "lane", "tenant", "created_at", "predicted_s", "type", "from_stage", "stop_at")
        query = sa.select(*(jobs.c[name] for name in columns)).where(jobs.c.state == JobState.QUEUED)
        waiting = [
            Waiting(
                Head(row.id, Lane(row.lane), row.tenant, row.created_at, row.predicted_s),
                measured.run_s(row.type, row.from_stage, row.stop_at),
            )
            for row in connection.execute(query.order_by(jobs.c.id))
        ]
        alive = sa.select(sa.func.count()).select_from(workers).where(workers.c.seen_at > now - FRESH_S)
        slots = max(1, connection.scalar(alive) or 0) * self._concurrent_jobs
        query = sa.select(jobs.c.id, jobs.c.type, jobs.c.stop_at).where(jobs.c.state.in_(list(WORKING)))
        busy = connection.execute(query).all()
        stages = stages_of(connection, [row.id for row in busy])
        ends = [now + measured.left_s(row.type, stages[row.id], row.stop_at, now) for row in busy]
        free_at = [*sorted(ends)[:slots], *[now] * (slots - len(ends))]
        return foresee(waiting, shares_of(connection), free_at, now)
