"""Tensors that are wrong in every way, by both wires to a replica: refused as the caller's fault, by name."""

import asyncio
import json
import threading
from typing import NamedTuple

import grpc
import httpx
import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.backends.ray.oip_plane import OipPlane
from serving.backends.ray.oip_server import OipServer
from serving.backends.ray.served import function_models
from serving.protocol.oip import DATATYPES, InferResponse, Tensor
from serving.settings import LimitSettings

CONFIG = text_format.Parse(
    """
    name: "m" backend: "ray"
    input [ { name: "NUMBERS" data_type: TYPE_FP32 dims: [ -1, 2 ] optional: true },
            { name: "WORDS" data_type: TYPE_STRING dims: [ -1 ] optional: true } ]
    output [ { name: "ANSWER" data_type: TYPE_FP32 dims: [ 1 ] } ]
    """,
    ModelConfig(),
)
SIZES = st.integers(0, 3)
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Wrong(NamedTuple):
    """One input, and which words of its refusal name what is wrong."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes
    outputs: tuple[str, ...] = ()
    named: str = ""


async def infer(request):
    return InferResponse("m", outputs=(Tensor("ANSWER", "FP32", (1,), bytes(4)),))


@pytest.fixture(scope="module")
def ports():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = OipServer(OipPlane(function_models(infer, {"m": CONFIG})), LimitSettings(infer_bytes=1 << 20))
    yield asyncio.run_coroutine_threadsafe(server.start(), loop).result(30)
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def curl(ports):
    with httpx.Client(base_url=f"http://127.0.0.1:{ports[0]}", trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def stub(ports):
    with grpc.insecure_channel(f"127.0.0.1:{ports[1]}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def by_http(curl, wrong):
    """Status and text of the refusal."""
    entry = {"name": wrong.name, "datatype": wrong.datatype, "shape": wrong.shape}
    document = {"inputs": [entry | {"parameters": {"binary_data_size": len(wrong.data)}}]}
    document["outputs"] = [{"name": name} for name in wrong.outputs]
    head = json.dumps(document).encode()
    headers = {"inference-header-content-length": str(len(head))}
    answer = curl.post("/v2/models/m/infer", content=head + wrong.data, headers=headers)
    return answer.status_code, answer.text


def by_grpc(stub, wrong):
    message = pb.ModelInferRequest(model_name="m", raw_input_contents=[wrong.data])
    message.inputs.add(name=wrong.name, datatype=wrong.datatype, shape=wrong.shape)
    for name in wrong.outputs:
        message.outputs.add(name=name)
    try:
        stub.ModelInfer(message)
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def elements(sizes):
    return b"".join(size.to_bytes(4, "little") + bytes(size) for size in sizes)


@st.composite
def past_the_end(draw):
    sizes = draw(st.lists(SIZES, max_size=4))
    data = elements(sizes) + draw(st.integers(8, 2**32 - 1)).to_bytes(4, "little") + bytes(draw(SIZES))
    return Wrong("WORDS", "BYTES", (len(sizes) + 1,), data, named="WORDS")


@st.composite
def left_over(draw):
    sizes = draw(st.lists(SIZES, max_size=4))
    return Wrong("WORDS", "BYTES", (len(sizes),), elements(sizes) + draw(st.binary(min_size=1)), named="WORDS")


@st.composite
def miscounted(draw):
    rows, size = draw(st.integers(0, 64)), draw(st.integers(0, 1024))
    return Wrong("NUMBERS", "FP32", (rows, 2), bytes(size + (size == rows * 8)), named="NUMBERS")


@st.composite
def negative(draw):
    shape = draw(
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4).filter(lambda sizes: min(sizes) < 0)
    )
    name, datatype = draw(st.sampled_from([("NUMBERS", "FP32"), ("WORDS", "BYTES")]))
    return Wrong(name, datatype, tuple(shape), draw(st.binary(max_size=16)), named=name)


@st.composite
def overflowing(draw):
    shape = (draw(st.integers(2**40, 2**62)), draw(st.integers(2**30, 2**62)))
    return Wrong("NUMBERS", "FP32", shape, draw(st.binary(max_size=16)), named="NUMBERS")


UNKNOWN = st.builds(
    Wrong,
    st.just("NUMBERS"),
    st.text(st.characters(codec="ascii", categories=("L", "N")), max_size=40).filter(
        lambda word: word not in DATATYPES
    ),
    st.just((1, 2)),
    st.just(bytes(8)),
    st.just(()),
    st.just("inputs[0].datatype NUMBERS"),
)
OTHER = st.builds(
    Wrong,
    st.just("NUMBERS"),
    st.sampled_from(sorted(set(DATATYPES) - {"FP32"})),
    st.just((1, 2)),
    st.just(bytes(8)),
    st.just(()),
    st.just("NUMBERS"),
)
TWICE = st.builds(
    Wrong,
    st.just("NUMBERS"),
    st.just("FP32"),
    st.just((1, 2)),
    st.just(bytes(8)),
    st.integers(2, 5).map(lambda count: ("ANSWER",) * count),
    st.just("ANSWER"),
)
WRONGS = {
    "negative shape": negative(),
    "overflowing shape": overflowing(),
    "miscounted": miscounted(),
    "prefix past the end": past_the_end(),
    "left over": left_over(),
    "unknown datatype": UNKNOWN,
    "another datatype": OTHER,
    "output twice": TWICE,
}


@pytest.mark.parametrize("strategy", WRONGS.values(), ids=WRONGS.keys())
def test_what_is_wrong_with_a_tensor_is_the_callers_fault_and_named(curl, stub, strategy):
    @FEW
    @given(strategy)
    def refused(wrong):
        status, text = by_http(curl, wrong)
        assert status == 400, text
        assert any(word in text for word in wrong.named.split()), text
        code, text = by_grpc(stub, wrong)
        assert code is grpc.StatusCode.INVALID_ARGUMENT, text
        assert any(word in text for word in wrong.named.split()), text

    refused()
    assert curl.get("/v2/health/ready").status_code == 200
    right = Wrong("NUMBERS", "FP32", (1, 2), bytes(8))
    assert by_http(curl, right)[0] == 200
    assert by_grpc(stub, right)[0] is grpc.StatusCode.OK
