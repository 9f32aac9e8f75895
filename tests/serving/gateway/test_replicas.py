"""Any gateway answers for any job: two of them on one database, SQLite and PostgreSQL, and one folder of artifacts."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.serving.gateway.site import Site, open_site, open_worker
from tests.serving.gateway.test_events import parse

FILM = {"type": "film", "input": {"title": "A film", "clips": 2}}


@pytest.fixture(params=["sqlite", "postgresql"])
async def gateways(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Site, Site]]:
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres_database")
    home = tmp_path / "home"
    async with open_site(home, jobs_database_url=url) as one, open_site(home, jobs_database_url=url) as other:
        yield one, other


async def test_what_one_gateway_took_in_another_shows_tells_and_gives(gateways: tuple[Site, Site]) -> None:
    one, other = gateways
    job = (await one.http.post("/v1/jobs", json=FILM, headers={"Idempotency-Key": "k"})).json()
    again = await other.http.post("/v1/jobs", json=FILM, headers={"Idempotency-Key": "k"})
    assert (again.json()["id"], again.headers["idempotent-replayed"]) == (job["id"], "true")
    shown = (await other.http.get(job["url"])).json()
    assert (shown["state"], shown["queue_position"]) == ("queued", 1)
    following = asyncio.create_task(other.http.get(f"{job['url']}/events"))
    await asyncio.sleep(0.1)
    async with open_worker(one.office):
        events = parse((await following).text)
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert events[-1].event.state == "completed"
    whole = await other.http.get(f"{job['url']}/artifacts/score")
    part = await other.http.get(f"{job['url']}/artifacts/score", headers={"Range": "bytes=2-4"})
    assert (whole.status_code, part.status_code) == (200, 206)
    assert part.content == whole.content[2:5]
    assert [each["id"] for each in (await other.http.get("/v1/jobs?state=completed")).json()["data"]] == [job["id"]]


async def test_what_one_gateway_took_in_another_cancels(gateways: tuple[Site, Site]) -> None:
    one, other = gateways
    waiting = (await one.http.post("/v1/jobs", json=FILM)).json()
    assert (await other.http.post(f"{waiting['url']}/cancel")).json()["state"] == "cancelled"
    assert (await one.http.get(waiting["url"])).json()["state"] == "cancelled"
    async with open_worker(one.office):
        slow = (await one.http.post("/v1/jobs", json={"type": "film", "input": {"title": "x", "seconds": 30}})).json()
        await other.office.until(slow["id"], lambda record: record.state == "processing")
        following = asyncio.create_task(one.http.get(f"{slow['url']}/events"))
        assert (await other.http.delete(slow["url"])).status_code == 202
        assert (await other.office.until(slow["id"])).state == "cancelled"
        assert parse((await following).text)[-1].event.state == "cancelled"
