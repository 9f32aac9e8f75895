"""RedisStream: jobs from a Redis stream through a consumer group, answers to another stream; an intake's source.

The one invariant: an entry stays pending in the group until its job is durable or it lies in the dead-letter stream.
"""

import json
import os
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from uuid import uuid4

import redis.asyncio as redis
from pydantic import JsonValue
from redis.exceptions import ResponseError

from serving.errors import foreign_text
from serving.jobs.intake.base import Delivery, answer_of, progress_of
from serving.jobs.records import EventRecord, JobRecord
from serving.settings import IntakeSettings

IDLE_S: Final = 60.0
"""An entry that a consumer held this long without a word is another one's: the consumer died."""
MAX_ANSWERS: Final = 10_000
"""About this many entries are kept in a stream of answers, and of dead letters."""
MAX_NAME_CHARS: Final = 200
_BLOCK_MS: Final = 1000
_ANSWER_S: Final = 10.0
_FORGET_S: Final = 24 * 3600.0
_AT_ONCE: Final = 16


class RedisStream:
    """A stream; its entries have the fields ``body``, and if they like ``id`` and ``reply``.

    Args:
        settings: of the intake.
        idle_s: when a silent consumer's entries are taken over.
    """

    holds = False

    def __init__(self, settings: IntakeSettings, *, idle_s: float = IDLE_S) -> None:
        self._url = settings.url
        self._stream = settings.queue
        self._group = settings.group
        self._dead = settings.dead_letter or f"{settings.queue}.dead"
        self._answers = f"{settings.queue}.results"
        self._idle_ms = int(idle_s * 1000)
        self.extend_s: float | None = idle_s / 4
        self._consumer = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self._redis: redis.Redis | None = None

    @property
    def _client(self) -> redis.Redis:
        if self._redis is None:
            raise ConnectionError("not connected")
        return self._redis

    async def open(self) -> None:
        """Connect, make the stream and its group, and forget consumers that hold nothing and are long gone."""
        self._redis = redis.Redis.from_url(
            self._url, socket_connect_timeout=_ANSWER_S, socket_timeout=_ANSWER_S, health_check_interval=30
        )
        try:
            await self._client.xgroup_create(self._stream, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        for consumer in await self._client.xinfo_consumers(self._stream, self._group):
            if not consumer["pending"] and consumer["idle"] > _FORGET_S * 1000:
                await self._client.xgroup_delconsumer(self._stream, self._group, consumer["name"])

    async def close(self) -> None:
        """Disconnect."""
        client, self._redis = self._redis, None
        if client is not None:
            await client.aclose()

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """What this consumer had before it lost the connection, then what dead ones left, and what is new."""
        async for delivery in self._own():
            yield delivery
        while True:
            async for delivery in self._left():
                yield delivery
            for entry, fields in await self._read(">"):
                yield _delivery(entry, fields, self._answers)

    async def _own(self) -> AsyncIterator[Delivery]:
        last = "0"
        while entries := await self._read(last):
            last = entries[-1][0].decode()
            for entry, fields in entries:
                if fields:
                    yield _delivery(entry, fields, self._answers)
                else:  # trimmed from the stream
                    await self._client.xack(self._stream, self._group, entry)

    async def _left(self) -> AsyncIterator[Delivery]:
        """Entries of consumers that fell silent."""
        start: Any = "0-0"
        while True:
            start, entries, *_ = await self._client.xautoclaim(
                self._stream, self._group, self._consumer, self._idle_ms, start, count=1
            )
            for entry, fields in entries:
                yield _delivery(entry, fields, self._answers, attempt=2)
            if start in {b"0-0", "0-0"}:
                return

    async def _read(self, after: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
        count = 1 if after == ">" else _AT_ONCE
        found = await self._client.xreadgroup(
            self._group, self._consumer, {self._stream: after}, count=count, block=_BLOCK_MS
        )
        # A list of streams in the protocol's second version, a map in its third.
        streams = list(found.values()) if isinstance(found, dict) else [entries for _, entries in found or []]
        return [entry for entries in streams for entry in _flat(entries)]

    async def ack(self, delivery: Delivery) -> None:
        """Take the entry off the group's pending ones."""
        await self._client.xack(self._stream, self._group, delivery.handle[0])

    async def reject(self, delivery: Delivery, reason: str) -> None:
        """Copy the entry into the dead-letter stream, with ``reason`` and ``entry``, and acknowledge it, at once."""
        entry, fields = delivery.handle
        async with self._client.pipeline(transaction=True) as together:
            dead = {**fields, b"reason": foreign_text(reason).encode(), b"entry": entry}
            together.xadd(self._dead, dead, maxlen=MAX_ANSWERS, approximate=True)
            together.xack(self._stream, self._group, entry)
            await together.execute()

    async def release(self, delivery: Delivery) -> None:
        """Make the entry look abandoned, so that another consumer takes it at once."""
        await self._claim(delivery, idle=self._idle_ms)

    async def extend(self, delivery: Delivery) -> None:
        """Show that this consumer lives."""
        await self._claim(delivery, idle=0)

    async def _claim(self, delivery: Delivery, idle: int) -> None:
        entry = delivery.handle[0]
        await self._client.xclaim(self._stream, self._group, self._consumer, 0, [entry], idle=idle, justid=True)

    async def progress(self, reply: Mapping[str, JsonValue], delivery: Delivery | None, told: EventRecord) -> None:
        """Add an entry of kind ``progress`` to the reply stream."""
        await self._answer(reply, "progress", progress_of(told))

    async def result(self, reply: Mapping[str, JsonValue], delivery: Delivery | None, record: JobRecord) -> None:
        """Add an entry of kind ``result`` to the reply stream."""
        await self._answer(reply, "result", answer_of(record))

    async def _answer(self, reply: Mapping[str, JsonValue], kind: str, body: Mapping[str, JsonValue]) -> None:
        entry: dict[Any, Any] = {"id": str(reply["id"]), "kind": kind, "body": json.dumps(body)}
        await self._client.xadd(str(reply["stream"]), entry, maxlen=MAX_ANSWERS, approximate=True)

    async def waiting(self) -> int | None:
        """Entries that the group has not delivered yet; None where Redis lost count."""
        for group in await self._client.xinfo_groups(self._stream):
            if group["name"] in {self._group, self._group.encode()}:
                lag = group.get("lag")
                return None if lag is None else int(lag)
        return None


def _flat(entries: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:  # noqa: ANN401  either protocol's shape
    return list(entries[0]) if entries and isinstance(entries[0], list) else list(entries)


def _delivery(entry: bytes, fields: Mapping[bytes, bytes], answers: str, attempt: int = 1) -> Delivery:
    own = fields.get(b"id", b"").decode(errors="replace")
    reply = fields.get(b"reply", b"").decode(errors="replace") or answers
    return Delivery(
        id=own or entry.decode(),
        body=fields.get(b"body", b""),
        attempt=attempt,
        reply={"stream": reply[:MAX_NAME_CHARS], "id": (own or entry.decode())[:MAX_NAME_CHARS]},
        handle=(entry, dict(fields)),
    )
