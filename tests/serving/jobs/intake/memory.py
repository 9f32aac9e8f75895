"""A queue in memory: what the runner's own tests take messages from, with every way a broker can fail."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from serving.jobs.intake.base import Delivery
from serving.jobs.records import EventRecord, JobRecord


@dataclass
class MemoryQueue:
    """A source whose broker is this object."""

    holds: bool = False
    extend_s: float | None = 0.05
    away: int = 0
    lines: asyncio.Queue[Delivery | Exception] = field(default_factory=asyncio.Queue)
    acked: list[str] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)
    released: list[str] = field(default_factory=list)
    extended: list[str] = field(default_factory=list)
    progressed: list[EventRecord] = field(default_factory=list)
    results: list[JobRecord] = field(default_factory=list)
    opened: int = 0
    refuse_results: int = 0
    taken: int = 0

    async def open(self) -> None:
        self.opened += 1
        if self.opened <= self.away:
            raise ConnectionRefusedError("no broker")

    async def close(self) -> None:
        pass

    async def deliveries(self) -> AsyncIterator[Delivery]:
        while True:
            item = await self.lines.get()
            if isinstance(item, Exception):
                raise item
            self.taken += 1
            yield item

    async def ack(self, delivery: Delivery) -> None:
        self.acked.append(delivery.id)

    async def reject(self, delivery: Delivery, reason: str) -> None:
        self.rejected[delivery.id] = reason

    async def release(self, delivery: Delivery) -> None:
        self.released.append(delivery.id)

    async def extend(self, delivery: Delivery) -> None:
        self.extended.append(delivery.id)

    async def progress(self, reply: Mapping[str, JsonValue], delivery: Delivery | None, told: EventRecord) -> None:
        self.progressed.append(told)

    async def result(self, reply: Mapping[str, JsonValue], delivery: Delivery | None, record: JobRecord) -> None:
        if self.refuse_results:
            self.refuse_results -= 1
            raise ConnectionResetError("gone in mid-answer")
        self.results.append(record)

    async def waiting(self) -> int | None:
        return self.lines.qsize()
