"""One address for both kinds of replica: a real Triton and a Ray replica behind the edge."""

import asyncio
import contextlib
import json

import grpc
import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc.aio as triton_grpc
import tritonclient.http.aio as triton_http
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

from serving.backends.triton.install import default_folder, find_tritonserver, install
from serving.backends.triton.server import TritonServer
from serving.protocol.endpoint import Endpoint, Heartbeat
from serving.protocol.oip_http import HEADER_LENGTH
from serving.settings import Settings
from tests.serving.backends.triton.conftest import (
    OPTIONAL,
    PLUS_ONE,
    STRINGS,
    add_graph,
    shout_graph,
    write_model,
)
from tests.serving.edge.conftest import HOST, Gateway, inputs
from tests.serving.edge.test_edge import talk

KINDS = (triton_http, triton_grpc)


def endpoint_of(server):
    ports, sockets = server.ports, server.sockets
    http, rpc = f"{HOST}:{ports.http}", f"{HOST}:{ports.grpc}"
    return Endpoint(model="plus_one", http=http, grpc=rpc, http_socket=sockets.http, grpc_socket=sockets.grpc)


@contextlib.asynccontextmanager
async def running(mesh, settings, models):
    install(default_folder())
    server = TritonServer(find_tritonserver(Settings()), models, settings.home)
    await server.start()
    endpoint = endpoint_of(server)
    assert endpoint.http_socket, "on one machine the edge and Triton speak by sockets"
    served = [endpoint.model_copy(update={"model": model.name}) for model in models]
    await mesh.edge.heartbeat(Heartbeat(replica_id="triton", endpoints=served))
    yield server
    await mesh.edge.heartbeat(Heartbeat(replica_id="triton", endpoints=[]))
    await server.stop()


@pytest.fixture
async def triton(mesh, settings, tmp_path):
    async with running(mesh, settings, [write_model(tmp_path, "plus_one", PLUS_ONE, add_graph(4))]) as server:
        yield server


@pytest.fixture
async def free_sized(mesh, settings, tmp_path):
    """A Triton whose models take tensors of any size."""
    models = [
        write_model(tmp_path, "optional", OPTIONAL, add_graph("n", batch=None)),
        write_model(tmp_path, "strings", STRINGS, shout_graph()),
    ]
    async with running(mesh, settings, models) as server:
        yield server


@pytest.fixture
async def gateway(mesh, settings):
    gateway = Gateway(mesh.edge, settings.limits, expected=["echo", "plus_one"])
    http, rpc = await gateway.start()
    endpoint = Endpoint(model="*", http=f"{HOST}:{http}", grpc=f"{HOST}:{rpc}")
    await mesh.edge.heartbeat(Heartbeat(replica_id="gateway", endpoints=[endpoint]))
    yield gateway
    await gateway.stop()


async def test_a_triton_model_and_a_ray_model_answer_at_one_address(mesh, gateway, triton, replica):
    async with mesh.clients() as clients:
        for client, kind in clients:
            assert await client.is_server_ready()
            tensor = kind.InferInput("X", [1, 4], "FP32")
            tensor.set_data_from_numpy(np.zeros((1, 4), np.float32))
            for version in ("", "1"):
                result = await client.infer("plus_one", [tensor], model_version=version)
                assert result.as_numpy("Y").tolist() == [[1, 1, 1, 1]]
            assert (await client.infer("echo", inputs(kind))).as_numpy("Y").tolist() == [1.0, 2.5]
        (http, _), (rpc, _) = clients
        assert (await http.get_model_metadata("plus_one"))["platform"]
        assert (await rpc.get_model_config("plus_one")).config.max_batch_size == 8
        index = {entry["name"]: entry["state"] for entry in await http.get_model_repository_index()}
        assert index == {"echo": "READY", "plus_one": "READY"}
        for statistics in (
            await http.get_inference_statistics(),
            await rpc.get_inference_statistics(as_json=True),
        ):
            counts = {
                each["name"]: int(each["inference_stats"]["success"]["count"]) for each in statistics["model_stats"]
            }
            assert counts == {"echo": 2, "plus_one": 4}


async def test_both_kinds_refuse_in_the_same_words(mesh, gateway, triton, replica):
    async with mesh.clients() as clients:
        for client, kind in clients:
            texts = []
            for model in ("plus_one", "echo"):
                wrong = kind.InferInput("X", [1, 4], "INT32")
                wrong.set_data_from_numpy(np.zeros((1, 4), np.int32))
                with pytest.raises(InferenceServerException) as caught:
                    await client.infer(model, [wrong])
                texts.append(caught.value.message().replace(model, "M"))
                assert caught.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")
            assert texts[1] in texts[0] or texts[0] in texts[1]


async def test_many_requests_at_once_are_all_answered(mesh, gateway, triton):
    async def ask(client, kind):
        tensor = kind.InferInput("X", [1, 4], "FP32")
        tensor.set_data_from_numpy(np.zeros((1, 4), np.float32))
        return (await client.infer("plus_one", [tensor])).as_numpy("Y").sum()

    async with mesh.clients() as clients:
        for client, kind in clients:
            assert sum(await asyncio.gather(*(ask(client, kind) for _ in range(64)))) == 256


HOSTILE = {
    "deep": [b"[" * 200_000],
    "deep-small": [b"[" * 8192],
    "raw-for-a-batch": [b"x" * 64, "Inference-Header-Content-Length: 0"],
    "negative": [b"{}", "Inference-Header-Content-Length: -1"],
    "beyond": [b"{}", "Inference-Header-Content-Length: 3"],
    "huge": [b"{}", "Inference-Header-Content-Length: 99999999999999999999"],
    "shape": [b'{"inputs":[{"name":"X","datatype":"FP32","shape":[9223372036854775807,4],"data":[1]}]}'],
    "terabyte": [b'{"inputs":[{"name":"X","datatype":"FP32","shape":[1,1099511627776],"data":[1]}]}'],
    "bytes": [b'{"inputs":[{"name":"X","datatype":"FP32","shape":[1,4],"parameters":{"binary_data_size":-5}}]}'],
    "no-json": [b"{broken"],
    "no-inputs": [b"[1]"],
    "number-for-text": [b'{"id":5,"inputs":[{"name":"X","datatype":"FP32","shape":[1,4],"parameters":{}}]}'],
    "negative-shape": [
        b'{"inputs":[{"name":"X","datatype":"FP32","shape":[-1,4],"parameters":{"binary_data_size":16}}]}'
    ],
    "parameters": [b'{"parameters":5,"inputs":[]}'],
    "packed": [b"\x1f\x8b garbage", "Content-Encoding: gzip"],
}


async def test_hostile_inference_is_refused_and_triton_lives(mesh, gateway, triton):
    child = triton._process._child.pid
    for name, (body, *headers) in HOSTILE.items():
        lines = "".join(f"{line}\r\n" for line in [*headers, f"Content-Length: {len(body)}", "Connection: close"])
        head = f"POST /v2/models/plus_one/infer HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode()
        answer = await talk(mesh, head + body)
        assert answer[9:10] == b"4", (name, answer[:300])
        assert b'"error"' in answer, name
    async with grpc.aio.insecure_channel(mesh.grpc) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for message in (
            b"",
            b"\x0a",
            b"\x0a\x08plus_one\x12\xff",
            b"\x0a\x08plus_one" + b"\x3a\x7f" * 50,
            b"\xff" * 700,
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(message, timeout=5)
            assert caught.value.code() != grpc.StatusCode.DEADLINE_EXCEEDED
    assert triton._process._child.pid == child, "it did not die meanwhile"
    async with mesh.clients() as clients:
        for client, kind in clients:
            tensor = kind.InferInput("X", [1, 4], "FP32")
            tensor.set_data_from_numpy(np.zeros((1, 4), np.float32))
            assert (await client.infer("plus_one", [tensor])).as_numpy("Y").tolist() == [[1, 1, 1, 1]]


GIGANTIC = [[1 << 62], [1, 1 << 62], [0, 1 << 62], [1 << 32, 1 << 32], [1 << 16] * 4, [1 << 61], [(1 << 63) - 1]]


async def test_a_shape_whose_bytes_overflow_costs_no_model_its_life(mesh, gateway, free_sized):
    """Triton counts no bytes, finds none, and the model is lost for good while it is called ready."""
    triton = psutil.Process(free_sized._process._child.pid)
    before = sorted(child.pid for child in triton.children())
    async with (
        httpx.AsyncClient(base_url=f"http://{mesh.http}") as client,
        grpc.aio.insecure_channel(mesh.grpc) as channel,
    ):
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for shape in GIGANTIC:
            for model, datatype in (("optional", "FP32"), ("strings", "BYTES")):
                bare = {"name": "X", "datatype": datatype, "shape": shape}
                document = json.dumps({"inputs": [{**bare, "parameters": {"binary_data_size": 0}}]}).encode()
                headers = {HEADER_LENGTH: str(len(document))}
                answer = await client.post(f"/v2/models/{model}/infer", content=document, headers=headers)
                assert answer.status_code == 400, (shape, answer.text)
                request = pb.ModelInferRequest(model_name=model, inputs=[bare], raw_input_contents=[b""])
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.ModelInfer(request, timeout=5)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, (shape, caught.value)
                (streamed,) = [answer async for answer in stub.ModelStreamInfer(iter([request]), timeout=5)]
                assert streamed.error_message
    left = [child for child in triton.children() if child.status() != psutil.STATUS_ZOMBIE]
    assert sorted(child.pid for child in left) == before


FAULTS = {
    "id": ("/infer", {"id": 5}),
    "priority": ("/infer", {"parameters": {"priority": "x"}}),
    "parameters": ("/infer", {"parameters": 5}),
    "text": ("/infer", {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1], "data": ["a"]}]}),
    "fraction": ("/infer", {"inputs": [{"name": "X", "datatype": "INT32", "shape": [1], "data": [1.5]}]}),
    "classification": ("/infer", {"outputs": [{"name": "Y", "parameters": {"classification": -1}}]}),
    "outputs": ("/infer", {"outputs": [5]}),
    "broken": ("/generate", b"{broken"),
    "empty": ("/generate", b""),
    "list": ("/generate", b"[1]"),
    "generate-parameters": ("/generate", b'{"parameters":5}'),
    "generate-id": ("/generate", b'{"id":5}'),
    "stream-broken": ("/generate_stream", b"{broken"),
    "stream-list": ("/generate_stream", b"[1]"),
    "stream-parameters": ("/generate_stream", b'{"parameters":5}'),
}


async def test_what_triton_calls_internal_and_is_the_clients_fault_is_400_on_every_way(mesh, gateway, triton):
    split = {"name": "X", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}
    whole = {"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    async with httpx.AsyncClient(base_url=f"http://{mesh.http}") as client:
        for name, (path, fault) in FAULTS.items():
            if isinstance(fault, bytes):
                bodies = [(fault, {})]
            else:
                straight, looked_at = (json.dumps({"inputs": [each], **fault}).encode() for each in (split, whole))
                bodies = [(straight + bytes(16), {HEADER_LENGTH: str(len(straight))}), (looked_at, {})]
            for body, headers in bodies:
                answer = await client.post(f"/v2/models/plus_one{path}", content=body, headers=headers)
                assert answer.status_code == 400, (name, answer.text)
                assert answer.json()["error"], name
