"""A gateway without jobs: what is there, and what says that it is not."""

import asyncio

import httpx
import pytest

from serving.gateway.deployment import GatewayDeployment
from serving.settings import Settings
from tests.serving.gateway.test_deployment import FakeEdge, beat_of


@pytest.fixture
async def client(tmp_path):
    models = tmp_path / "models"
    await asyncio.to_thread(models.mkdir)
    settings = Settings(home=tmp_path / "home", model_repositories=[models]).resolved()
    edge = FakeEdge()
    gateway = GatewayDeployment.__new__(GatewayDeployment)
    await GatewayDeployment.__init__(gateway, settings, {}, edge, jobs=False)
    await gateway.check_health()
    [endpoint] = (await beat_of(edge)).endpoints
    async with httpx.AsyncClient(base_url=f"http://{endpoint.http}", trust_env=False) as made:
        yield made
    await gateway.close()
    assert not (settings.home / "jobs.sqlite").exists()


async def test_its_front_page_says_what_it_is(client):
    answer = await client.get("/")
    assert (answer.status_code, answer.json()["name"]) == (200, "reelmesh")
    assert "/v2/health/ready" in answer.json()["see"]


async def test_inference_health_and_metrics_are_there(client):
    for path in ("/v2/health/live", "/v2/health/ready", "/v2", "/healthz", "/metrics", "/metrics/own"):
        assert (await client.get(path)).status_code == 200, path


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/artifacts", "/jobs/1", "/static/site.css"])
async def test_jobs_and_pages_are_not(client, path):
    answer = await client.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"
