"""The control port of a replica, over real HTTP."""

import base64
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
import pytest_asyncio

from serving.backends.control import SMALL_BODY_BYTES, ControlServer, RegionKind, load_bytes
from serving.errors import NotFound, Unsupported
from serving.protocol.control import TOKEN_HEADER, ModelState
from serving.settings import LimitSettings

LOAD_BYTES = 1 << 20


class Recorder:
    """A ReplicaControl that writes down what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    async def index(self) -> list[ModelState]:
        return [
            ModelState(name="a", version="1", state="READY"),
            ModelState(name="b", state="UNAVAILABLE", reason="it is broken"),
        ]

    async def load(self, name: str, parameters: Mapping[str, Any]) -> None:
        if name == "missing":
            raise NotFound("failed to load 'missing', no such model")
        if name == "crash":
            raise RuntimeError("a bug")
        self.asked.append(("load", name, dict(parameters)))

    async def unload(self, name: str, *, dependents: bool) -> None:
        self.asked.append(("unload", name, dependents))

    async def log_settings(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        return {"log_info": True, **changes}

    async def trace_settings(self, model: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        return {"model": model, **changes}

    async def register_region(self, kind: RegionKind, name: str, body: Mapping[str, Any]) -> None:
        if kind == "cuda":
            raise Unsupported("no GPU")
        self.asked.append(("register", kind, name, dict(body)))

    async def unregister_region(self, kind: RegionKind, name: str) -> None:
        self.asked.append(("unregister", kind, name))

    async def regions(self, kind: RegionKind, name: str) -> list[dict[str, Any]]:
        return [{"name": name or "all", "kind": kind}]


async def metrics() -> str:
    return "up 1\n"


@pytest.fixture
def replica() -> Recorder:
    return Recorder()


@pytest_asyncio.fixture
async def server(replica: Recorder) -> AsyncIterator[ControlServer]:
    running = ControlServer(replica, metrics, LOAD_BYTES)
    await running.start()
    yield running
    await running.stop()


@pytest_asyncio.fixture
async def client(server: ControlServer) -> AsyncIterator[httpx.AsyncClient]:
    headers = {TOKEN_HEADER: server.control.token}
    async with httpx.AsyncClient(base_url=f"http://{server.control.address}", headers=headers) as each:
        yield each


async def test_without_the_token_only_metrics_are_told(server: ControlServer) -> None:
    async with httpx.AsyncClient(base_url=f"http://{server.control.address}") as stranger:
        assert (await stranger.get("/metrics")).text == "up 1\n"
        for headers in ({}, {TOKEN_HEADER: "wrong"}, {TOKEN_HEADER: ""}):
            answer = await stranger.post("/v2/repository/index", headers=headers)
            assert answer.status_code == 401
            assert "error" in answer.json()


async def test_the_index_leaves_out_what_is_not_ready_when_asked(client: httpx.AsyncClient) -> None:
    whole = (await client.post("/v2/repository/index")).json()
    assert whole == [
        {"name": "a", "version": "1", "state": "READY"},
        {"name": "b", "state": "UNAVAILABLE", "reason": "it is broken"},
    ]
    ready = (await client.post("/v2/repository/index", json={"ready": True})).json()
    assert [entry["name"] for entry in ready] == ["a"]


async def test_loads_and_unloads_reach_the_replica_with_their_parameters(
    client: httpx.AsyncClient, replica: Recorder
) -> None:
    parameters = {"config": "{}", "file:1/model.onnx": base64.b64encode(b"x").decode()}
    for path, body in (
        ("a%20b/load", {"parameters": parameters}),
        ("a/load", {}),
        ("a/unload", {"parameters": {"unload_dependents": True}}),
        ("a/unload", {}),
    ):
        answer = await client.post(f"/v2/repository/models/{path}", json=body)
        assert answer.status_code == 200 and answer.content == b""
    assert replica.asked == [
        ("load", "a b", parameters),
        ("load", "a", {}),
        ("unload", "a", True),
        ("unload", "a", False),
    ]


async def test_settings_are_read_and_changed(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v2/logging")).json() == {"log_info": True}
    assert (await client.post("/v2/logging", json={"log_info": False})).json() == {"log_info": False}
    assert (await client.get("/v2/trace/setting")).json() == {"model": ""}
    changed = await client.post("/v2/models/a/trace/setting", json={"trace_rate": "5"})
    assert changed.json() == {"model": "a", "trace_rate": "5"}


async def test_shared_memory_calls_reach_the_replica(client: httpx.AsyncClient, replica: Recorder) -> None:
    body = {"key": "/k", "offset": 0, "byte_size": 64}
    assert (await client.post("/v2/systemsharedmemory/region/r/register", json=body)).status_code == 200
    assert (await client.post("/v2/systemsharedmemory/region/r/unregister")).status_code == 200
    assert (await client.post("/v2/cudasharedmemory/unregister")).status_code == 200
    assert replica.asked == [
        ("register", "system", "r", body),
        ("unregister", "system", "r"),
        ("unregister", "cuda", ""),
    ]
    assert (await client.get("/v2/systemsharedmemory/status")).json() == [{"name": "all", "kind": "system"}]
    one = await client.get("/v2/cudasharedmemory/region/r/status")
    assert one.json() == [{"name": "r", "kind": "cuda"}]


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/v2/repository/models/missing/load", b"", 404, "failed to load 'missing'"),
        ("/v2/repository/models/crash/load", b"", 500, "the control port failed"),
        ("/v2/repository/models/a/load", b"[]", 400, "must be a JSON object"),
        ("/v2/repository/models/a/load", b'{"parameters": 1}', 400, "parameters: must be an object"),
        ("/v2/repository/models/a/load", b"x" * (LOAD_BYTES + 1), 413, "is over"),
        ("/v2/repository/models/a/unload", b'{"parameters": {"unload_dependents": 1}}', 400, "unload_dependents"),
        ("/v2/logging", b"[" * SMALL_BODY_BYTES, 400, "nested more than 64 deep"),
        ("/v2/logging", b" " * (SMALL_BODY_BYTES + 1), 413, "is over"),
        ("/v2/cudasharedmemory/region/r/register", b"{}", 501, "no GPU"),
        ("/v2/othersharedmemory/unregister", b"{}", 404, "systemsharedmemory"),
        ("/v2/nothing", b"", 404, "/v2/nothing"),
    ],
)
async def test_an_error_is_told_in_the_protocols_shape(
    client: httpx.AsyncClient, path: str, body: bytes, status: int, says: str
) -> None:
    answer = await client.post(path, content=body)
    assert answer.status_code == status
    assert says in answer.json()["error"]


async def test_a_body_without_a_length_is_bounded_too(client: httpx.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(SMALL_BODY_BYTES // 1024 + 1):
            yield b" " * 1024

    assert (await client.post("/v2/logging", content=pieces())).status_code == 413


async def test_a_stopped_port_is_closed_and_its_token_is_not_shown(replica: Recorder) -> None:
    server = ControlServer(replica, metrics, LOAD_BYTES)
    await server.start()
    await server.stop()
    assert server.control.token not in repr(server.control)
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(server.metrics_url)


def test_whatever_a_gateway_lets_through_fits_in_base64():
    limits = LimitSettings(infer_bytes=3 << 20)
    files = base64.b64encode(bytes(limits.infer_bytes))
    assert len(files) < load_bytes(limits) < len(files) + (2 << 20)
