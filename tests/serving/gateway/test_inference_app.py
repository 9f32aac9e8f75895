"""A gateway without jobs: what is there, and what says that it is not."""

import asyncio

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.gateway.deployment import GatewayDeployment
from serving.settings import Settings
from serving.telemetry import Exposition
from tests.serving.gateway.test_deployment import FakeEdge, beat_of


@pytest.fixture
def edge():
    return FakeEdge()


@pytest.fixture
async def client(tmp_path, edge):
    models = tmp_path / "models"
    await asyncio.to_thread(models.mkdir)
    settings = Settings(home=tmp_path / "home", model_repositories=[models]).resolved()
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


async def test_metrics_of_all_replicas_stand_side_by_side_and_add_up(client, edge, monkeypatch):
    text = '# TYPE nv_inference_count counter\nnv_inference_count{{model="m",version="1"}} {}\n'
    parts = [Exposition(text.format(3), {"part": "triton-a"}), Exposition(text.format(4), {"part": "triton-b"})]

    async def metrics():
        return parts

    monkeypatch.setattr(edge.metrics, "remote", metrics)
    told = (await client.get("/metrics")).text
    [family] = [each for each in text_string_to_metric_families(told) if each.name == "nv_inference_count"]
    assert sorted(sample.value for sample in family.samples) == [3, 4]
    assert {sample.labels["part"] for sample in family.samples} == {"triton-a", "triton-b"}
    assert told.count("# TYPE nv_inference_count counter") == 1
