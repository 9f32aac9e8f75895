"""The edge as clients see it: a real HAProxy in front of real replicas and a gateway."""

import asyncio
import json
import socket
import sys
from pathlib import Path

import grpc
import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc.aio as triton_grpc
import tritonclient.http.aio as triton_http
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

from serving.errors import Unavailable
from serving.protocol.control import ControlCall
from serving.settings import EdgeSettings
from tests.serving.edge.conftest import HOST, LIBRARY_PATH, Child, Edge, heartbeat, inputs, until

OWNER = Path(__file__).with_name("owner.py")


def haproxy_of(mesh):
    return psutil.Process(mesh.edge._haproxy._child.pid)


async def test_tritonclient_infers_through_the_edge_without_the_gateway(mesh, gateway, replica):
    async with mesh.clients() as clients:
        for client, kind in clients:
            for version in ("", "1"):
                result = await client.infer("echo", inputs(kind), model_version=version)
                assert result.as_numpy("Y").tolist() == [1.0, 2.5]
    assert gateway.calls == 0


async def test_a_turn_that_fails_is_not_the_last(mesh, gateway, monkeypatch):
    turns = 0

    async def broken():
        nonlocal turns
        turns += 1
        raise RuntimeError("a defect of the edge")

    monkeypatch.setattr(mesh.edge._haproxy, "collect", broken)
    await until(lambda: turns > 1)


@pytest.mark.parametrize("size", [1, 16, 60, 61, 128, 150, 600, 4096, 16384, 100_000])
async def test_messages_of_every_size_find_their_model(mesh, gateway, replica, size):
    async with mesh.clients() as clients:
        for client, kind in clients:
            result = await client.infer("echo", inputs(kind, np.arange(size)))
            assert result.as_numpy("Y").shape == (size,)
    assert gateway.calls == 0


# aiohttp, inside tritonclient, warns of every body over a megabyte.
@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")
async def test_a_tensor_of_64_mib_passes_both_ways(mesh, replica):
    values = np.arange(16 << 20, dtype=np.float32)
    async with mesh.clients() as clients:
        for client, kind in clients:
            result = await client.infer("echo", inputs(kind, values))
            np.testing.assert_array_equal(result.as_numpy("Y"), values)


async def test_control_calls_are_answered_by_the_gateway(mesh, gateway, replica):
    async with mesh.clients() as ((http, _), (rpc, _)):
        for client in (http, rpc):
            assert await client.is_server_live()
            assert not await client.is_server_ready()  # the model "absent" has no replica
            assert await client.is_model_ready("echo")
            assert not await client.is_model_ready("absent")
        assert (await http.get_model_metadata("echo"))["inputs"][0]["name"] == "X"
        assert (await rpc.get_model_metadata("echo", model_version="1")).inputs[0].name == "X"
        assert (await http.get_model_config("echo"))["backend"] == "ray"
        assert (await rpc.get_model_config("echo")).config.backend == "ray"
        states = {entry["name"]: entry["state"] for entry in await http.get_model_repository_index()}
        assert states == {"echo": "READY", "absent": "UNAVAILABLE"}
        assert len((await rpc.get_model_repository_index()).models) == 2
        assert "model_repository" in (await http.get_server_metadata())["extensions"]
        assert (await rpc.get_server_metadata()).name == "reelmesh"


async def test_statistics_of_all_replicas_add_up(mesh, gateway, replica, settings):
    async with mesh.clients() as clients:
        for client, kind in clients:
            await client.infer("echo", inputs(kind))
        (http, _), (rpc, _) = clients
        for statistics in (
            await http.get_inference_statistics(),
            await http.get_inference_statistics("echo"),
            await rpc.get_inference_statistics(as_json=True),
        ):
            assert int(statistics["model_stats"][0]["inference_stats"]["success"]["count"]) == 2


UNKNOWN = [
    ("nobody", "", "Request for unknown model: 'nobody' is not found", "404", "StatusCode.NOT_FOUND"),
    ("echo", "7", "Request for unknown model: 'echo' version 7 is not found", "404", "StatusCode.NOT_FOUND"),
    ("absent", "", "the model 'absent' is not ready: no replica answers", "503", "StatusCode.UNAVAILABLE"),
    ("no/such model", "", "must hold no path|there is no POST", "404", "StatusCode.INVALID_ARGUMENT"),
]


@pytest.mark.usefixtures("gateway", "replica")
@pytest.mark.parametrize("case", UNKNOWN, ids=[case[0] for case in UNKNOWN])
async def test_what_is_not_served_gets_the_protocols_error(mesh, case):
    model, version, problem, status, code = case
    async with mesh.clients() as clients:
        for (client, kind), expected in zip(clients, (status, code), strict=True):
            with pytest.raises(InferenceServerException, match=problem) as caught:
                await client.infer(model, inputs(kind), model_version=version)
            assert caught.value.status() == expected


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
async def test_compressed_requests_arrive(mesh, gateway, replica, algorithm):
    async with mesh.clients() as ((http, _), (rpc, _)):
        result = await http.infer("echo", inputs(triton_http), request_compression_algorithm=algorithm)
        assert result.as_numpy("Y").tolist() == [1.0, 2.5]
        result = await rpc.infer("echo", inputs(triton_grpc, np.ones(5000)), compression_algorithm=algorithm)
        assert result.as_numpy("Y").shape == (5000,)


async def test_requests_go_to_all_replicas_and_a_killed_one_leaves_the_rotation(mesh, gateway):
    first, second = await asyncio.gather(Child.start("first"), Child.start("second"))
    try:
        await mesh.edge.heartbeat(heartbeat("a", "echo", first.ports))
        await mesh.edge.heartbeat(heartbeat("b", "echo", second.ports))
        async with mesh.clients() as clients:
            for client, kind in clients:
                answers = [(await client.infer("echo", inputs(kind))).as_numpy("WHO")[0] for _ in range(12)]
                assert set(answers) == {b"first", b"second"}
            await first.kill()
            failed = 0
            for client, kind in clients * 20:
                try:
                    assert (await client.infer("echo", inputs(kind))).as_numpy("WHO")[0] == b"second"
                except InferenceServerException as error:
                    assert error.status() in ("502", "StatusCode.UNAVAILABLE")
                    failed += 1
            assert failed == 0, "no request had been sent to the replica when it died"
            await second.kill()
            await asyncio.sleep(1)
            for client, kind in clients:
                with pytest.raises(InferenceServerException, match="no replica of the model answers") as caught:
                    await client.infer("echo", inputs(kind))
                assert caught.value.status() in ("503", "StatusCode.UNAVAILABLE")
    finally:
        await asyncio.gather(first.kill(), second.kill())


async def test_a_replica_that_falls_silent_leaves_and_comes_back(settings):
    short = settings.model_copy(
        update={"edge": EdgeSettings(http_port=0, grpc_port=0, metrics_port=0, endpoint_ttl_s=0.5)}
    )
    edge = await Edge.start(short)
    child = await Child.start("only")
    try:
        url = f"http://{HOST}:{(await edge.ports()).http}/v2/models/echo/infer"
        for _ in range(2):
            await edge.heartbeat(heartbeat("a", "echo", child.ports))
            async with httpx.AsyncClient() as client:
                assert (await client.post(url, content=b"{}")).status_code == 400  # the replica's own answer
                await asyncio.sleep(1.0)
                assert await edge.endpoints() == []
                assert (await client.post(url, content=b"{}")).status_code == 503
    finally:
        await child.kill()
        await edge.close()


async def test_servers_that_left_are_deleted(mesh, replica):
    async with mesh.clients() as clients:
        for client, kind in clients:
            await client.infer("echo", inputs(kind))
    await mesh.edge.heartbeat(heartbeat("one", "echo", (1, 2)).model_copy(update={"endpoints": []}))
    await until(lambda: not mesh.edge._haproxy._retired, within_s=15)


async def test_heartbeats_at_one_moment_all_take_effect(mesh):
    """Replicas that load or unload a model together tell of it together."""
    names = [f"r{number}" for number in range(6)]
    for model in ("left", "right"):
        beats = [heartbeat(name, model, (9000 + place, 9100 + place)) for place, name in enumerate(names)]
        await asyncio.gather(*(mesh.edge.heartbeat(beat) for beat in beats))
        told = await mesh.edge._haproxy._runtime.ask("show servers state")
        standing = {line.split()[3] for line in told.splitlines() if "_90" in line and line.split()[6] == "0"}
        assert len(standing) == len(names)
        gone = [beat.model_copy(update={"endpoints": []}) for beat in beats]
        await asyncio.gather(*(mesh.edge.heartbeat(beat) for beat in gone))
        told = await mesh.edge._haproxy._runtime.ask("show servers state")
        assert not [line for line in told.splitlines() if "_90" in line and line.split()[6] == "0"]


async def test_a_killed_haproxy_comes_back_with_its_routes(mesh, gateway, replica):
    async with mesh.clients() as ((http, kind), _):
        await http.infer("echo", inputs(kind))
    haproxy_of(mesh).kill()
    async with mesh.clients() as clients:
        for client, kind in clients:
            assert (await client.infer("echo", inputs(kind))).as_numpy("WHO")[0] == b"one"
    await mesh.edge.check_health()


async def test_a_client_that_goes_away_cancels_the_work_behind_the_edge(mesh, replica, settings):
    plane = replica._plane
    async with mesh.clients() as ((http, _), (rpc, _)):
        for client, kind in ((http, triton_http), (rpc, triton_grpc)):
            waiting = asyncio.create_task(client.infer("echo", inputs(kind), parameters={"sleep_s": 30.0}))
            await asyncio.sleep(0.3)
            waiting.cancel()
            await asyncio.sleep(0.7)
    assert plane.statistics("echo")["model_stats"][0]["inference_stats"]["fail"]["count"] == 2


async def test_a_grpc_deadline_holds_behind_the_edge(mesh, replica):
    async with mesh.clients() as (_, (rpc, kind)):
        with pytest.raises(InferenceServerException, match=r"Deadline|the request's timeout passed"):
            await rpc.infer("echo", inputs(kind), parameters={"sleep_s": 30.0}, client_timeout=0.3)


async def test_without_a_gateway_the_edge_says_so_in_each_protocols_words(mesh):
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://{mesh.http}/v2/health/ready")
        assert (answer.status_code, answer.json()) == (503, {"error": "the mesh is not ready"})
        assert answer.headers["retry-after"] == "1"
    async with grpc.aio.insecure_channel(mesh.grpc) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service_pb2_grpc.GRPCInferenceServiceStub(channel).ServerLive(pb.ServerLiveRequest())
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "the mesh is not ready" in caught.value.details()


async def talk(mesh, data):
    """What the edge answers to raw bytes before it closes."""
    reader, writer = await asyncio.open_connection(HOST, mesh.ports.http)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"nonsense\r\n\r\n", 400, id="not-http"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 431, id="huge-header"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 99_000 + b"\r\n\r\n", 400, id="header-over-the-buffer"
        ),
        pytest.param(b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, id="length"),
        pytest.param(
            b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n", 413, id="infer"
        ),
        pytest.param(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", 413, id="job"),
    ],
)
async def test_hostile_requests_are_refused(mesh, gateway, replica, data, status):
    head, _, body = (await talk(mesh, data)).partition(b"\r\n\r\n")
    assert f"HTTP/1.1 {status}".encode() == head[:12]
    if status == 413:  # HAProxy 2.8's page for what is no HTTP cannot be changed
        assert "over limits." in json.loads(body)["error"]


async def test_many_idle_connections_do_not_stop_others(mesh, replica):
    idle = []
    try:
        for _ in range(1000):
            idle.append(socket.create_connection((HOST, mesh.ports.http)))
        async with mesh.clients() as ((http, kind), _):
            await http.infer("echo", inputs(kind))
    finally:
        for connection in idle:
            connection.close()


async def test_metrics_show_the_gateway_haproxy_and_the_edge(mesh, gateway, replica):
    async with httpx.AsyncClient(base_url=f"http://{HOST}:{mesh.ports.metrics}") as client:
        assert "reelmesh_" in (await client.get("/metrics")).text
        assert (await client.get("/v2")).status_code == 404
    parts = {part.labels["part"]: part.text for part in await mesh.edge.metrics()}
    names = {family.name for text in parts.values() for family in text_string_to_metric_families(text)}
    assert set(parts) == {"edge", "haproxy"}
    assert {"reelmesh_edge_endpoints", "haproxy_process_current_connections"} <= names
    assert len(parts["haproxy"]) < 200_000


async def test_a_taken_port_refuses_the_start(settings):
    with socket.create_server((HOST, 0)) as taken:
        edge = EdgeSettings(http_port=0, grpc_port=taken.getsockname()[1], metrics_port=0)
        with pytest.raises(Unavailable, match=r"edge\.grpc_port: port \d+ of 127\.0\.0\.1 is taken"):
            await Edge.start(settings.model_copy(update={"edge": edge}))


async def test_requests_in_flight_finish_while_the_edge_stops(settings):
    edge = await Edge.start(settings)
    child = await Child.start("only")
    try:
        await edge.heartbeat(heartbeat("a", "echo", child.ports))
        ports = await edge.ports()
        async with triton_http.InferenceServerClient(f"{HOST}:{ports.http}") as http:
            waiting = asyncio.create_task(http.infer("echo", inputs(triton_http), parameters={"sleep_s": 1.0}))
            await asyncio.sleep(0.3)
            await edge.close()
            assert (await waiting).as_numpy("WHO")[0] == b"only"
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await asyncio.open_connection(HOST, ports.http)
    finally:
        await child.kill()


@pytest.mark.parametrize("wire", [0, 1], ids=["http", "grpc"])
async def test_kept_connections_that_never_rest_are_closed_by_an_edge_that_stops(mesh, replica, wire):
    answers, stopped = 0, asyncio.Event()

    async def drive(client, kind):
        nonlocal answers
        while not stopped.is_set():
            await client.infer("echo", inputs(kind), parameters={"sleep_s": 0.02})
            answers += 1

    async with mesh.clients() as clients:
        callers = [asyncio.create_task(drive(*clients[wire])) for _ in range(8)]
        await until(lambda: answers > 50)
        began = asyncio.get_running_loop().time()
        await mesh.edge.drain()
        assert asyncio.get_running_loop().time() - began < 5
        stopped.set()
        for failed in await asyncio.gather(*callers, return_exceptions=True):
            assert failed is None or "onnect" in str(failed), "what had been taken in was answered"


async def test_haproxy_ends_with_the_process_that_started_it(tmp_path):
    owner = await asyncio.create_subprocess_exec(
        sys.executable, str(OWNER), str(tmp_path), stdout=asyncio.subprocess.PIPE, env=LIBRARY_PATH
    )
    haproxy = psutil.Process(int(await asyncio.wait_for(owner.stdout.readline(), 20)))
    owner.kill()
    await owner.wait()
    await until(lambda: not haproxy.is_running() or haproxy.status() == psutil.STATUS_ZOMBIE, within_s=5)


async def test_the_edge_remembers_what_replicas_that_start_later_must_repeat(mesh):
    calls = [ControlCall(key=f"model/{name}", path=f"/v2/repository/models/{name}/load") for name in "ba"]
    for call in calls:
        await mesh.edge.remember(call)
    assert await mesh.edge.recall() == calls
    await mesh.edge.forget("model/b")
    assert await mesh.edge.recall() == calls[1:]


async def test_the_edge_tells_of_every_living_replica(mesh, gateway, replica):
    assert [beat.replica_id for beat in await mesh.edge.replicas()] == ["gateway", "one"]
