import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from serving.gateway.deployment import GatewayDeployment
from serving.protocol.control import ControlCall
from serving.protocol.endpoint import ANY_MODEL, Heartbeat
from serving.settings import Settings
from serving.telemetry import Exposition
from tests.serving.jobs.film import CATALOG


class Method:
    """What a Serve handle's attribute looks like to its caller."""

    def __init__(self, work: Callable[..., Awaitable[Any]]) -> None:
        self._work = work

    def remote(self, *arguments: object) -> Awaitable[Any]:
        return self._work(*arguments)


class FakeEdge:
    def __init__(self) -> None:
        self.beats: list[Heartbeat] = []
        self.heartbeat = Method(self._heartbeat)
        self.replicas = Method(self._replicas)
        self.recall = Method(self._recall)
        self.metrics = Method(self._metrics)

    async def _heartbeat(self, beat: Heartbeat) -> None:
        self.beats.append(beat)

    async def _replicas(self) -> list[Heartbeat]:
        return self.beats[-1:]

    async def _recall(self, key: str) -> list[ControlCall]:
        return []

    async def _metrics(self) -> list[Exposition]:
        assert self.beats[-1].metrics_url is not None
        async with httpx.AsyncClient(trust_env=False) as client:
            text = (await client.get(self.beats[-1].metrics_url)).text
        return [Exposition(text, {"part": self.beats[-1].replica_id})]


class FakeWorkers:
    """A Serve handle of two workers, and of a third that has just died."""

    def broadcast(self, method: str) -> "FakeWorkers":
        assert method == "metrics"
        return self

    async def results_async(self, *, timeout_s: float, return_exceptions: bool) -> list[object]:
        assert timeout_s > 0
        assert return_exceptions
        text = "# TYPE reelmesh_job_seconds gauge\nreelmesh_job_seconds "
        return [("one", f"{text}3\n"), RuntimeError("it died"), ("two", f"{text}4\n")]


@pytest.fixture
def edge() -> FakeEdge:
    return FakeEdge()


@pytest.fixture
async def gateway(tmp_path: Path, edge: FakeEdge) -> AsyncIterator[GatewayDeployment]:
    models = tmp_path / "models"
    await asyncio.to_thread(models.mkdir)
    settings = Settings(home=tmp_path / "home", model_repositories=[models]).resolved()
    deployment = GatewayDeployment.__new__(GatewayDeployment)
    await GatewayDeployment.__init__(deployment, settings, CATALOG, edge, FakeWorkers())
    yield deployment
    await deployment.close()


async def beat_of(edge: FakeEdge) -> Heartbeat:
    for _ in range(100):
        if edge.beats:
            break
        await asyncio.sleep(0.01)
    return edge.beats[-1]


async def test_it_registers_as_the_default_route_and_answers_there(gateway: GatewayDeployment, edge: FakeEdge) -> None:
    await gateway.check_health()
    [endpoint] = (await beat_of(edge)).endpoints
    assert endpoint.model == ANY_MODEL
    async with httpx.AsyncClient(base_url=f"http://{endpoint.http}", trust_env=False) as http:
        assert (await http.get("/healthz")).json()["job_types"] == ["film"]
        assert (await http.get("/v2/health/live")).status_code == 200
        missing = await http.get("/v2/models/nope")
        assert (missing.status_code, list(missing.json())) == (404, ["error"])
    async with grpc.aio.insecure_channel(endpoint.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert (await stub.ServerLive(pb.ServerLiveRequest())).live


async def test_metrics_are_those_of_the_whole_mesh_each_series_once(gateway: GatewayDeployment, edge: FakeEdge) -> None:
    beat = await beat_of(edge)
    async with httpx.AsyncClient(base_url=f"http://{beat.endpoints[0].http}", trust_env=False) as http:
        await http.get("/healthz")
        text = (await http.get("/metrics")).text
    assert f'part="{beat.replica_id}"' in text
    assert 'reelmesh_job_seconds{part="worker-one"} 3' in text
    assert 'reelmesh_job_seconds{part="worker-two"} 4' in text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    series = [line.rpartition(" ")[0] for line in lines]
    assert len(series) == len(set(series))


async def test_closing_leaves_the_rotation_before_the_port_closes(tmp_path: Path, edge: FakeEdge) -> None:
    models = tmp_path / "models"
    await asyncio.to_thread(models.mkdir)
    settings = Settings(home=tmp_path / "home", model_repositories=[models]).resolved()
    deployment = GatewayDeployment.__new__(GatewayDeployment)
    await GatewayDeployment.__init__(deployment, settings, CATALOG, edge)
    http = (await beat_of(edge)).endpoints[0].http
    await deployment.close()
    assert edge.beats[-1].endpoints == []
    with pytest.raises(httpx.ConnectError):
        await httpx.AsyncClient(trust_env=False).get(f"http://{http}/healthz")


async def test_an_edge_that_does_not_answer_is_told_in_the_protocols_shape(
    gateway: GatewayDeployment, edge: FakeEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    [endpoint] = (await beat_of(edge)).endpoints

    async def lost() -> None:
        raise RuntimeError("the actor died")

    monkeypatch.setattr(edge.replicas, "remote", lost)
    async with httpx.AsyncClient(base_url=f"http://{endpoint.http}", trust_env=False) as http:
        answer = await http.get("/v2/models/nope")
    assert answer.status_code == 503
    assert answer.json() == {"error": "the edge does not answer the gateway: try again in a moment"}
    async with grpc.aio.insecure_channel(endpoint.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="the edge does not answer") as caught:
            await stub.ModelConfig(pb.ModelConfigRequest(name="nope"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
