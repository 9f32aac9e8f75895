"""What clients may send, and how: bounds, slow clients, and what never reaches a replica straight."""

import asyncio
import contextlib
import json
import resource

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from serving.edge import config
from serving.edge.config import JSON_BYTES
from serving.settings import LimitSettings
from tests.serving.edge.conftest import HOST, inputs
from tests.serving.edge.test_edge import talk

INFER = b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
BODY = json.dumps({"inputs": [{"name": "X", "datatype": "FP32", "shape": [1], "data": [1.5]}]}).encode()
PLAIN = json.dumps(
    {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}]}
).encode()


def post(*headers, body=BODY):
    lines = [*headers] if any("ength:" in header or "chunked" in header for header in headers) else [
        *headers, f"Content-Length: {len(body)}"
    ]  # fmt: skip
    return INFER + "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


def status_of(answer):
    return int(answer.split(b" ", 2)[1])


async def test_a_small_request_goes_straight(mesh, gateway, replica):
    assert status_of(await talk(mesh, split(len(PLAIN), PLAIN + bytes(4)))) == 200
    assert gateway.calls == 0


@pytest.mark.parametrize("word", ['"data"', '"data" \r\n\t', '"d\\u0061ta"'], ids=["plain", "spaced", "escaped"])
async def test_tensors_in_json_are_counted_by_the_gateway(mesh, gateway, replica, word):
    body = BODY.replace(b'"data"', word.encode())
    assert status_of(await talk(mesh, post(body=body))) == 200
    huge = body.replace(b"[1]", b"[1, 1099511627776]")
    assert status_of(await talk(mesh, post(body=huge))) == 400
    assert gateway.calls == 2


@pytest.mark.parametrize("word", ["data", "\\u65e5"], ids=["data", "escaped"])
async def test_a_tensor_may_have_the_name_data_and_go_straight(mesh, gateway, replica, word):
    named = PLAIN.replace(b'"X"', f'"{word}"'.encode())
    assert status_of(await talk(mesh, split(len(named), named + bytes(4)))) == 400  # the replica's own answer
    assert gateway.calls == 0


def split(value, body=BODY):
    return post(f"Inference-Header-Content-Length: {value}", f"Content-Length: {len(body)}", body=body)


CHUNKED = f"{len(BODY):x}\r\n".encode() + BODY + b"\r\n0\r\n\r\n"
ODD = {
    "negative": (split("-1"), 400),
    "no-number": (split("abc"), 400),
    "half-a-number": (split("5abc"), 400),
    "signed": (split("+5"), 400),
    "two-numbers": (split("5,6"), 400),
    "beyond-the-body": (split(len(BODY) + 1), 400),
    "beyond-64-bits": (split("9" * 30), 400),
    "empty": (split(""), 400),
    "deep": (post(body=b"[" * 100_000), 400),
    "deep-before-data": (split(50_000, b"[" * 100_000), 400),
    "no-length": (INFER + b"\r\n", 400),
    "chunked": (post("Transfer-Encoding: chunked", body=CHUNKED), 200),
    "packed-garbage": (post("Content-Encoding: gzip"), 400),
}


@pytest.mark.parametrize("name", ODD)
async def test_what_could_harm_a_replica_is_looked_at_by_the_gateway_first(mesh, gateway, replica, name):
    data, status = ODD[name]
    assert status_of(await talk(mesh, data)) == status
    assert gateway.calls == 1


async def test_two_lengths_of_the_json_are_not_for_the_replica_to_choose_from(mesh, gateway, replica):
    await talk(mesh, post("Inference-Header-Content-Length: 0", "Inference-Header-Content-Length: 5"))
    assert gateway.calls == 1


@pytest.mark.parametrize(("size", "straight"), [(JSON_BYTES, True), (JSON_BYTES + 1, False)])
async def test_json_goes_straight_up_to_its_bound(mesh, gateway, replica, size, straight):
    assert status_of(await talk(mesh, split(size, PLAIN.ljust(size) + bytes(4)))) == 200
    assert (gateway.calls == 0) is straight


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"limits": LimitSettings(infer_bytes=1 << 20)})


async def test_a_chunked_body_over_the_limit_is_refused_too(mesh, gateway, replica):
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
    answer = await talk(mesh, post("Transfer-Encoding: chunked", body=piece * 17 + b"0\r\n\r\n"))
    assert status_of(answer) == 413
    assert b'"error"' in answer


async def test_a_grpc_message_over_the_limit_is_refused_by_the_edge(mesh, gateway, replica):
    request = pb.ModelInferRequest(model_name="echo", raw_input_contents=[bytes(2 << 20)])
    async with grpc.aio.insecure_channel(mesh.grpc) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "limits.infer_bytes" in caught.value.details()


@pytest.fixture
def hasty(monkeypatch):
    """A mesh whose clients have one second for their headers."""
    monkeypatch.setattr(config, "HEADER_S", 1)


SLOW = {
    "half-a-header": b"GET / HT",
    "header-and-nothing": INFER + b"Content-Length: 10\r\n\r\n",
    "header-and-nothing-for-the-gateway": b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
    "half-a-body": INFER + b"Content-Length: 10\r\n\r\n12345",
}


@pytest.mark.parametrize("name", SLOW)
async def test_a_client_that_stops_in_the_middle_is_told_and_reaches_nobody(hasty, mesh, gateway, replica, name):
    answer = await talk(mesh, SLOW[name])
    assert status_of(answer) == 408
    assert gateway.calls == 0
    async with mesh.clients() as ((http, kind), _):
        await http.infer("echo", inputs(kind))


async def test_inference_goes_on_beside_ten_thousand_idle_connections(mesh, replica):
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[1], files[1]))
    room = config.EdgeConfig(0, 0, 0, LimitSettings(), descriptors=files[1]).max_connections
    count = min(10_000, room - 200)
    idle = []
    try:
        for _ in range(0, count, 200):
            idle += await asyncio.gather(*(asyncio.open_connection(HOST, mesh.ports.http) for _ in range(200)))
        async with mesh.clients() as clients:
            for client, kind in clients:
                async with asyncio.timeout(5):
                    await client.infer("echo", inputs(kind))
    finally:
        for _, writer in idle:
            writer.transport.abort()
        await asyncio.sleep(0)
        with contextlib.suppress(ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, files)


@pytest.fixture
def impatient(monkeypatch):
    """A mesh that waits one second for a client in the middle of a body."""
    monkeypatch.setattr(config, "STALL_S", 1)


async def test_a_stream_may_be_silent_for_longer_than_a_body(impatient, mesh, gateway, replica):
    request = pb.ModelInferRequest(
        model_name="echo", inputs=[{"name": "X", "datatype": "FP32", "shape": [1]}], raw_input_contents=[bytes(4)]
    )
    async with grpc.aio.insecure_channel(mesh.grpc) as channel:
        stream = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(timeout=20)
        for _ in range(2):
            await stream.write(request)
            answer = await stream.read()
            assert (answer.error_message, answer.infer_response.model_name) == ("", "echo")
            await asyncio.sleep(2.5)
        stream.cancel()
