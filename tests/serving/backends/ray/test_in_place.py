"""Large tensors on their way through a replica's servers: what is refused early, and what leaves the event loop."""

import gzip
import json
import os
import threading
from multiprocessing import shared_memory

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc.aio as triton_grpc
from google.protobuf import text_format
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.backends.ray.in_place import IN_PLACE_BYTES, is_small
from serving.backends.ray.oip_plane import OipPlane
from serving.backends.ray.oip_server import OipServer
from serving.backends.ray.served import function_models
from serving.protocol import oip, oip_compression, oip_grpc, oip_http
from serving.protocol.oip import InferResponse, Tensor
from serving.protocol.shared_memory import FOLDER, Regions
from serving.settings import LimitSettings

CONFIG = """
    name: "{name}" backend: "ray"
    input [ {{ name: "X" data_type: {kind} dims: [ -1 ] }} ]
    output [ {{ name: "Y" data_type: {kind} dims: [ -1 ] }} ]
"""
MODELS = {
    name: text_format.Parse(CONFIG.format(name=name, kind=kind), ModelConfig())
    for name, kind in (("numbers", "TYPE_FP32"), ("words", "TYPE_STRING"))
}
WORDS = Tensor.from_elements("X", [b"x"] * (IN_PLACE_BYTES // 5 + 1))
LIMITS = LimitSettings(infer_bytes=8 << 20, body_bytes=1 << 20)


async def echo(request):
    given = request.inputs[0]
    return InferResponse(request.model_name, outputs=(Tensor("Y", given.datatype, given.shape, given.data),))


@pytest.fixture
def regions():
    made = Regions()
    yield made
    made.unregister()


@pytest.fixture
async def ports(regions):
    server = OipServer(OipPlane(function_models(echo, MODELS), regions), LIMITS)
    yield await server.start()
    await server.stop()


@pytest.fixture
async def curl(ports):
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports[0]}") as client:
        yield client


@pytest.fixture
async def stub(ports):
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{ports[1]}", options=options) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def body(tensor, **output):
    entry = {"name": "X", "datatype": tensor.datatype, "shape": tensor.shape}
    document = {"inputs": [entry | {"parameters": {"binary_data_size": len(tensor.data)}}]} | output
    head = json.dumps(document).encode()
    return head + tensor.data, {"inference-header-content-length": str(len(head))}


def message(model, tensor):
    made = pb.ModelInferRequest(model_name=model, id="7", raw_input_contents=[tensor.data])
    made.inputs.add(name="X", datatype=tensor.datatype, shape=tensor.shape)
    return made


@pytest.fixture
def threads(monkeypatch):
    """The threads in which elements were counted and answers written, by function."""
    seen = {}

    def watch(module, name):
        original = getattr(module, name)

        def watched(*args, **named):
            seen.setdefault(name, set()).add(threading.current_thread())
            return original(*args, **named)

        return watched

    places = ((oip, "check_elements"), (oip_grpc, "join_contents"), (oip_http, "_json_data"))
    for module, name in places:
        monkeypatch.setattr(module, name, watch(module, name))
    return seen


async def stream_of(*messages):
    for each in messages:
        yield each


async def test_large_requests_and_answers_leave_the_event_loop_on_every_wire(curl, stub, threads):
    content, headers = body(WORDS)
    answer = await curl.post("/v2/models/words/infer", content=content, headers=headers)
    assert answer.json()["outputs"][0]["data"] == ["x"] * WORDS.shape[0]
    response = await stub.ModelInfer(message("words", WORDS))
    assert response.raw_output_contents == [WORDS.data]
    answers = [answer async for answer in stub.ModelStreamInfer(stream_of(message("words", WORDS)))]
    assert [answer.infer_response.raw_output_contents for answer in answers] == [[WORDS.data]]
    assert threads.keys() == {"check_elements", "join_contents", "_json_data"}
    # The model itself, which is this test's, makes its answer on the loop.
    threads["check_elements"].discard(threading.main_thread())
    assert threads["check_elements"]
    assert threading.main_thread() not in threads["join_contents"] | threads["_json_data"]


async def test_small_ones_stay_where_they_are(curl, stub, threads):
    small = Tensor.from_elements("X", [b"x"])
    content, headers = body(small)
    assert (await curl.post("/v2/models/words/infer", content=content, headers=headers)).status_code == 200
    await stub.ModelInfer(message("words", small))
    assert set.union(*threads.values()) == {threading.main_thread()}


async def test_elements_that_the_model_would_refuse_are_not_counted(curl, stub, monkeypatch):
    def count(*_, **__):
        raise AssertionError("elements were counted")

    monkeypatch.setattr(oip, "check_elements", count)
    zeros = Tensor("X", "UINT8", (4 << 20,), bytes(4 << 20))
    object.__setattr__(zeros, "datatype", "BYTES")
    object.__setattr__(zeros, "shape", (1 << 20,))
    content, headers = body(zeros)
    answer = await curl.post("/v2/models/numbers/infer", content=content, headers=headers)
    assert answer.status_code == 400
    assert "inference input 'X' data-type is 'BYTES', but model 'numbers' expects 'FP32'" in answer.json()["error"]
    with pytest.raises(grpc.aio.AioRpcError, match="expects 'FP32'") as caught:
        await stub.ModelInfer(message("numbers", zeros))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    (answer,) = [answer async for answer in stub.ModelStreamInfer(stream_of(message("numbers", zeros)))]
    assert "expects 'FP32'" in answer.error_message
    assert answer.infer_response.id == "7"


async def test_a_message_of_a_stream_that_is_large_does_not_lose_its_turn(stub):
    small = Tensor.from_elements("X", [b"y"])
    asked = [message("words", WORDS), message("words", small), message("nobody", WORDS), message("words", small)]
    answers = [answer async for answer in stub.ModelStreamInfer(stream_of(*asked))]
    assert [len(answer.infer_response.raw_output_contents) for answer in answers] == [1, 1, 0, 1]
    assert "unknown model" in answers[2].error_message


async def test_json_and_typed_contents_are_bounded_by_body_bytes(curl, stub):
    many = [0] * (1 << 19)
    document = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [len(many)], "data": many}]}
    for path, sent in (("infer", document), ("generate", {"X": many})):
        answer = await curl.post(f"/v2/models/numbers/{path}", json=sent)
        assert answer.status_code == 413
        assert "send tensors as binary data" in answer.json()["error"]
    typed = pb.ModelInferRequest(model_name="numbers")
    typed.inputs.add(name="X", datatype="FP32", shape=[len(many)]).contents.fp32_contents.extend(many)
    with pytest.raises(grpc.aio.AioRpcError, match="send tensors as raw_input_contents") as caught:
        await stub.ModelInfer(typed)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    raw = Tensor.from_array("X", np.zeros(len(many), np.float32))
    assert (await stub.ModelInfer(message("numbers", raw))).raw_output_contents == [raw.data]


async def test_a_compressed_body_grows_in_a_thread_however_small_it_is(curl, monkeypatch):
    seen, original = [], oip_compression.decompress

    def watched(*args):
        seen.append(threading.current_thread())
        return original(*args)

    monkeypatch.setattr("serving.backends.ray.oip_http_wire.decompress", watched)
    content = gzip.compress(b'{"inputs":[{"name":"X","datatype":"FP32","shape":[1],"data":[1]}]}')
    answer = await curl.post("/v2/models/numbers/infer", content=content, headers={"content-encoding": "gzip"})
    assert answer.status_code == 200
    assert threading.main_thread() not in seen
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("raw", "small"),
    [
        (b"{}", True),
        (bytes(IN_PLACE_BYTES), True),
        (bytes(IN_PLACE_BYTES + 1), False),
        (b'{"shared_memory_region": "r"}', False),
        (b'{"\\u0073hared_memory_region": "r"}', False),
    ],
    ids=["empty", "longest", "longer", "shared", "escaped"],
)
def test_what_names_shared_memory_is_not_small(raw, small):
    assert is_small(raw) is small


@pytest.fixture
def block(regions):
    made = shared_memory.SharedMemory(create=True, size=4 << 20)
    regions.register("r", made.name, 0, 4 << 20)
    yield made
    made.close()
    made.unlink()


async def test_a_client_that_cuts_its_memory_in_mid_request_is_refused_and_the_replica_lives(ports, block, monkeypatch):
    file, cut = FOLDER / block.name, threading.Event()
    pread = os.preadv

    def cutting(descriptor, buffers, offset):
        got = pread(descriptor, [buffers[0][: 1 << 20]], offset)
        if not cut.is_set():
            os.truncate(file, 1 << 20)
            cut.set()
        return got

    monkeypatch.setattr(os, "preadv", cutting)
    asked, wanted = triton_grpc.InferInput("X", [1 << 20], "FP32"), triton_grpc.InferRequestedOutput("Y")
    asked.set_shared_memory("r", 4 << 20)
    async with triton_grpc.InferenceServerClient(f"127.0.0.1:{ports[1]}") as client:
        with pytest.raises(Exception, match="'r' is smaller than it was registered"):
            await client.infer("numbers", [asked])
        own = triton_grpc.InferInput("X", [1 << 20], "FP32")
        own.set_data_from_numpy(np.zeros(1 << 20, np.float32))
        wanted.set_shared_memory("r", 4 << 20)
        with pytest.raises(Exception, match="'r' is smaller than it was registered"):
            await client.infer("numbers", [own], outputs=[wanted])
        assert await client.is_server_ready()


async def test_tensors_travel_through_shared_memory(ports, block):
    values = np.arange(1 << 19, dtype=np.float32)
    block.buf[: values.nbytes] = values.tobytes()
    asked, wanted = triton_grpc.InferInput("X", [1 << 19], "FP32"), triton_grpc.InferRequestedOutput("Y")
    asked.set_shared_memory("r", values.nbytes)
    wanted.set_shared_memory("r", values.nbytes, values.nbytes)
    async with triton_grpc.InferenceServerClient(f"127.0.0.1:{ports[1]}") as client:
        await client.infer("numbers", [asked], outputs=[wanted])
    assert bytes(block.buf[values.nbytes : 2 * values.nbytes]) == values.tobytes()
