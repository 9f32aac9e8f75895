"""EventHub: wakes everybody who watches a job when it has news; one per gateway, used by the event stream.

The one invariant: however many watch, the database is asked for news once per interval, and for each event once.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import structlog

from serving.jobs.database import AWAY, BackOff, away_text
from serving.jobs.records import EventRecord
from serving.jobs.store import JobStore

log = structlog.get_logger()

POLL_S: Final = 0.2
"""How often the database is asked for news while anybody watches."""
HEARTBEAT_S: Final = 5.0
"""A watcher hears something at least this often, so that proxies and browsers keep the connection."""
_ASKED_AT_ONCE: Final = 500


@dataclass(slots=True)
class _Topic:
    last: int = 0
    watchers: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)
    reading: dict[tuple[int, int], asyncio.Task[list[EventRecord]]] = field(default_factory=dict)

    def tell(self, last: int) -> None:
        """Wake who waits; who waits from now on waits for the next news."""
        if last > self.last:
            told, self.news, self.last = self.news, asyncio.Event(), last
            told.set()


class EventHub:
    """Follows jobs.

    Args:
        store: where the events are.
        poll_s: how often it is asked.
        heartbeat_s: longest silence towards a watcher.
    """

    def __init__(self, store: JobStore, *, poll_s: float = POLL_S, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._store = store
        self._poll_s = poll_s
        self._heartbeat_s = heartbeat_s
        self._topics: dict[str, _Topic] = {}
        self._poller: asyncio.Task[None] | None = None
        self._closed = False

    async def follow(self, job_id: str, *, after: int = 0) -> AsyncGenerator[list[EventRecord], None]:
        """Batches of events numbered above ``after`` up to the job's end or the hub's; an empty one is a heartbeat."""
        with self._watched(job_id) as topic:
            while not self._closed:
                news = topic.news
                events = await self._events(topic, job_id, after)
                if events:
                    after = events[-1].seq
                    yield events
                    if events[-1].is_final:
                        return
                    continue
                try:
                    await asyncio.wait_for(news.wait(), self._heartbeat_s)
                except TimeoutError:
                    yield []

    async def _events(self, topic: _Topic, job_id: str, after: int) -> list[EventRecord]:
        """Events above ``after``; watchers who have heard as much share a read, unless there is news since it began."""
        place = (after, topic.last)
        reading = topic.reading.get(place)
        if reading is None:
            reading = topic.reading[place] = asyncio.create_task(self._store.events(job_id, after=after))
            reading.add_done_callback(lambda _: topic.reading.pop(place, None))
        return await asyncio.shield(reading)

    async def close(self) -> None:
        """Let every watcher go, so that their connections end and they come again elsewhere."""
        self._closed = True
        for topic in self._topics.values():
            topic.news.set()
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)
            self._poller = None

    @contextlib.contextmanager
    def _watched(self, job_id: str) -> Iterator[_Topic]:
        topic = self._topics.setdefault(job_id, _Topic())
        topic.watchers += 1
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll(), name="event-hub")
        try:
            yield topic
        finally:
            topic.watchers -= 1
            if not topic.watchers:
                self._topics.pop(job_id, None)

    async def _poll(self) -> None:
        trouble: BackOff | None = None
        while self._topics:
            await asyncio.sleep(self._poll_s if trouble is None else max(self._poll_s, trouble.next_s()))
            try:
                await self._ask()
                trouble = None
            except Exception as error:
                trouble = trouble or BackOff()
                away = away_text(error) if isinstance(error, AWAY) else None
                log.warning("event_hub_failed", error=away, exc_info=away is None)

    async def _ask(self) -> None:
        watched = iter(list(self._topics))
        while chunk := list(islice(watched, _ASKED_AT_ONCE)):
            for job_id, last in (await self._store.last_events(chunk)).items():
                if (topic := self._topics.get(job_id)) is not None:
                    topic.tell(last)
