"""The control plane over HTTP, without an edge: every answer has the protocol's shape."""

import httpx
import pytest
from fastapi import FastAPI

from serving.errors import BadInput, NotFound, Unavailable
from serving.gateway.oip_http import oip_router
from serving.gateway.oip_mesh import OipMesh, index_wants_ready, merge_statistics
from serving.protocol.endpoint import Endpoint
from serving.settings import LimitSettings

GONE = Endpoint(model="gone", http="127.0.0.1:9", grpc="127.0.0.1:9")


def served(*endpoints):
    async def answer():
        return list(endpoints)

    return answer


@pytest.fixture
async def client():
    app = FastAPI()
    async with httpx.AsyncClient() as replicas:
        app.include_router(oip_router(served(GONE), LimitSettings(infer_bytes=1000), ["gone", "absent"], replicas))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://mesh") as made:
            yield made


CASES = {
    "not-ready": ("GET", "/v2/health/ready", b"", 503, "models without a replica: absent"),
    "unknown": ("GET", "/v2/models/nobody", b"", 404, "Request for unknown model: 'nobody' is not found"),
    "unknown-version": ("GET", "/v2/models/nobody/versions/3/config", b"", 404, "'nobody' version 3 is not found"),
    "absent": ("POST", "/v2/models/absent/infer", b"{}", 503, "no replica of the model 'absent' answers"),
    "gone": ("POST", "/v2/models/gone/infer", b"{}", 503, "the replica of the model 'gone' did not answer"),
    "too-large": ("POST", "/v2/models/gone/infer", bytes(1001), 413, "at most 1,000 bytes"),
    "deep": ("POST", "/v2/repository/index", b"[" * 60_000, 400, "nested more than 64"),
    "index-word": ("POST", "/v2/repository/index", b'{"ready": "yes"}', 400, "ready: must be a boolean"),
    "index-array": ("POST", "/v2/repository/index", b"[]", 400, "must be a JSON object"),
    "index-large": ("POST", "/v2/repository/index", bytes(70_000), 413, "at most 65,536 bytes"),
    "path": ("GET", "/v2/nothing/here", b"", 404, "there is no GET /v2/nothing/here"),
    "method": ("DELETE", "/v2/health/live", b"", 404, "there is no DELETE"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_every_refusal_is_an_error_in_the_protocols_shape(client, case):
    method, path, body, status, problem = case
    answer = await client.request(method, path, content=body)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert problem in answer.json()["error"]
    assert (answer.headers.get("retry-after") == "1") == (status == 503)


async def test_the_index_shows_what_is_there_and_what_is_missing(client):
    assert (await client.post("/v2/repository/index")).json() == [
        {"name": "absent", "state": "UNAVAILABLE", "reason": "no replica answers"},
        {"name": "gone", "version": "1", "state": "READY", "reason": ""},
    ]
    ready = await client.post("/v2/repository/index", json={"ready": True})
    assert [entry["name"] for entry in ready.json()] == ["gone"]


async def test_statistics_leave_out_a_replica_that_does_not_answer(client):
    assert (await client.get("/v2/models/stats")).json() == {"model_stats": []}


async def test_the_mesh_names_itself(client):
    assert (await client.get("/v2")).json()["name"] == "reelmesh"


async def test_a_version_picks_the_replica_that_serves_it():
    first = Endpoint(model="m", version="1", http="h:1", grpc="h:2")
    second = Endpoint(model="m", version="2", http="h:3", grpc="h:4")
    mesh = OipMesh(served(first, second, Endpoint(model="*", http="h:5", grpc="h:6")))
    assert [await mesh.find("m", version) for version in ("1", "2")] == [first, second]
    assert await mesh.find("m") in (first, second)
    assert await mesh.find("m", "9") in (first, second)
    with pytest.raises(NotFound):
        await mesh.find("*")


async def test_an_expected_model_without_replica_is_retryable_and_an_unknown_one_is_not():
    mesh = OipMesh(served(), ["m"])
    with pytest.raises(Unavailable):
        await mesh.find("m")
    with pytest.raises(NotFound):
        await mesh.find("n")


def test_counts_add_up_and_the_last_inference_is_the_latest():
    def entry(count, last, batches=()):
        return {
            "model_stats": [
                {
                    "name": "m",
                    "version": "1",
                    "last_inference": last,
                    "inference_count": count,
                    "inference_stats": {"success": {"count": count, "ns": 10 * count}},
                    "batch_stats": list(batches),
                }
            ]
        }

    merged = merge_statistics([entry(2, 50, ["a"]), {}, entry(3, 40, ["b"])])["model_stats"]
    assert merged == entry(5, 50, ["a", "b"])["model_stats"]


def test_an_empty_index_request_wants_everything():
    assert index_wants_ready(b" ") is False
    with pytest.raises(BadInput):
        index_wants_ready(b"{")
