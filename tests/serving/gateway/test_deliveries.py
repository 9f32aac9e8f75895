"""What was sent to webhooks, by HTTP."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from serving.gateway.app import create_app
from serving.gateway.deliveries import deliveries_router
from serving.gateway.deps import GatewayDeps
from serving.gateway.hub import EventHub
from serving.jobs.submit import JobDesk
from serving.jobs.tables import deliveries, jobs
from serving.jobs.webhooks.check import WebhookCheck
from serving.jobs.webhooks.deliveries import Deliveries
from serving.jobs.webhooks.secrets import Secrets
from tests.serving.jobs.film import CATALOG
from tests.serving.jobs.office import Office, open_office


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with open_office(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
async def http(office: Office) -> AsyncIterator[httpx.AsyncClient]:
    check = WebhookCheck(office.settings.webhooks, Secrets(None))
    desk = JobDesk(office.store, CATALOG, office.artifacts, check)
    routers = [deliveries_router(Deliveries(office.database))]
    hub = EventHub(office.store)
    app = create_app(GatewayDeps(office.settings, CATALOG, office.store, desk, office.artifacts, hub, routers))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://mesh") as opened:
        yield opened
    await hub.close()


async def test_dead_deliveries_are_listed_and_sent_again(office: Office, http: httpx.AsyncClient) -> None:
    job = await office.submit()

    def work(connection: sa.Connection) -> None:
        connection.execute(sa.update(jobs).where(jobs.c.id == job.id).values(webhook={"url": "http://secret.test/"}))

    await office.database.run(work)
    await office.store.cancel(job.id)
    [waiting] = (await http.get("/v1/deliveries", params={"job": job.id})).json()["data"]
    assert (waiting["event"], waiting["state"], waiting["job_id"]) == ("job.cancelled", "waiting", job.id)
    again = await http.post(f"/v1/deliveries/{waiting['id']}/resend")
    assert again.status_code == 409
    dead = sa.update(deliveries).values(state="dead", tries=10, last_problem="answered 500")
    await office.database.run(lambda connection: connection.execute(dead))
    listed = await http.get("/v1/deliveries", params={"state": "dead"})
    assert [found["last_problem"] for found in listed.json()["data"]] == ["answered 500"]
    assert "secret.test" not in listed.text
    again = await http.post(f"/v1/deliveries/{waiting['id']}/resend")
    assert (again.status_code, again.json()["state"], again.json()["tries"]) == (202, "waiting", 0)
    assert (await http.get("/v1/deliveries", params={"state": "dead"})).json()["data"] == []


@pytest.mark.parametrize("path", ["/v1/deliveries?job=none", "/v1/deliveries/none/resend"])
async def test_what_is_not_there_is_404(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.request("POST" if path.endswith("resend") else "GET", path)
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("webhook", "field"),
    [
        pytest.param({"url": "http://169.254.169.254/latest"}, "webhook.url", id="metadata"),
        pytest.param({"url": "https://8.8.8.8/", "events": ["job.done"]}, "webhook.events[0]", id="event"),
        pytest.param({"url": "https://8.8.8.8/"}, "webhook", id="no secret"),
    ],
)
async def test_a_webhook_that_cannot_work_is_422_and_stores_nothing(
    office: Office, http: httpx.AsyncClient, webhook: dict[str, object], field: str
) -> None:
    answer = await http.post("/v1/jobs", json={"type": "film", "input": {"title": "x"}, "webhook": webhook})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, field)
    assert (await office.store.page()).jobs == []
