import asyncio
import time
from typing import NamedTuple

import httpx
import pytest
import sqlalchemy as sa
import structlog
from structlog.testing import LogCapture

from serving.gateway import hub as module
from serving.gateway.hub import EventHub
from serving.jobs.records import EventRecord
from tests.serving.gateway.site import Site


class Sse(NamedTuple):
    id: int
    kind: str
    event: EventRecord


def parse(text: str) -> list[Sse]:
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and not line.startswith(":"))
        if "data" in fields:
            found.append(Sse(int(fields["id"]), fields["event"], EventRecord.model_validate_json(fields["data"])))
    return found


@pytest.mark.usefixtures("worker")
async def test_the_stream_tells_everything_in_order_and_ends_with_the_job(site: Site) -> None:
    job_id = (await site.office.submit(clips=4)).id
    answer = await site.http.get(f"/v1/jobs/{job_id}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = parse(answer.text)
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert {event.kind for event in events} == {"state", "stage", "progress"}
    assert events[-1].event.state == "completed"
    assert (await site.office.store.get(job_id)).last_event == events[-1].id


@pytest.mark.usefixtures("worker")
async def test_a_client_that_comes_again_hears_only_what_it_missed(site: Site) -> None:
    job_id = (await site.office.submit()).id
    await site.office.until(job_id)
    url = f"/v1/jobs/{job_id}/events"
    last = (await site.office.store.get(job_id)).last_event
    rest = parse((await site.http.get(url, headers={"Last-Event-ID": str(last - 2)})).text)
    assert [event.id for event in rest] == [last - 1, last]
    for seen in (last, 999_999):
        done = await site.http.get(url, headers={"Last-Event-ID": str(seen)})
        assert (done.status_code, done.content) == (204, b"")
    strange = await site.http.get(url, headers={"Last-Event-ID": "x"})
    assert (strange.status_code, strange.json()["error"]["param"]) == (422, "Last-Event-ID")


async def test_a_silent_job_is_heard_by_its_heartbeat_and_news_come_at_once(site: Site) -> None:
    job_id = (await site.office.submit()).id
    async with site.http.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
        lines = answer.aiter_lines()
        async for line in lines:
            if line.startswith(": "):
                break
        asked = time.monotonic()
        await site.office.store.cancel(job_id)
        text = "\n".join([line async for line in lines])
    assert time.monotonic() - asked < 1.5
    assert parse(text)[-1].event.state == "cancelled"


async def test_many_watchers_cost_one_question_per_interval(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = (await site.office.submit()).id
    asked, read, store = 0, 0, site.office.store
    ask, events = store.last_events, store.events

    async def counted(job_ids: list[str]) -> dict[str, int]:
        nonlocal asked
        asked += 1
        return await ask(job_ids)

    async def counted_read(job_id: str, *, after: int) -> list[EventRecord]:
        nonlocal read
        read += 1
        return await events(job_id, after=after)

    monkeypatch.setattr(store, "last_events", counted)
    monkeypatch.setattr(store, "events", counted_read)
    hub, began = EventHub(store, poll_s=0.1, heartbeat_s=5), time.monotonic()

    async def watch() -> int:
        return [event.seq async for batch in hub.follow(job_id) for event in batch][-1]

    watchers = [asyncio.create_task(watch()) for _ in range(50)]
    await asyncio.sleep(0.55)
    await site.office.store.cancel(job_id)
    assert set(await asyncio.gather(*watchers)) == {3}
    assert 3 <= asked <= (time.monotonic() - began) / 0.1 + 2
    assert read <= 6, "once for what there was, once to see that there is no more, and the same for the news"
    await hub.close()


async def test_closing_the_hub_ends_the_streams(site: Site) -> None:
    job_id = (await site.office.submit()).id

    async def listen() -> httpx.Response:
        return await site.http.get(f"/v1/jobs/{job_id}/events")

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0.3)
    await site.hub.close()
    answer = await asyncio.wait_for(listening, 2)
    assert [event.id for event in parse(answer.text)] == [1, 2]


async def test_a_database_that_is_away_is_told_in_single_lines_with_growing_pauses(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, store, job_id = LogCapture(), site.office.store, (await site.office.submit()).id
    monkeypatch.setattr(module, "log", structlog.wrap_logger(None, processors=[told]))
    hub = EventHub(store, poll_s=0.01, heartbeat_s=10)
    follower = asyncio.create_task(anext(hub.follow(job_id, after=2)))
    await asyncio.sleep(0.1)

    async def away(_: object) -> dict[str, int]:
        raise sa.exc.OperationalError("SELECT 1", {}, OSError("the server is on holiday"))

    with monkeypatch.context() as outage:
        outage.setattr(store, "last_events", away)
        await asyncio.sleep(1)
    lines = [(line["event"], line["error"], line["exc_info"]) for line in told.entries]
    assert 2 <= len(lines) <= 5
    assert set(lines) == {("event_hub_failed", "the server is on holiday", False)}
    await store.cancel(job_id)
    assert [event.state for event in await asyncio.wait_for(follower, 10)] == ["cancelled"]
    await hub.close()
