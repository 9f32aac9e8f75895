"""A replica's own servers, reached with tritonclient."""

import asyncio
import gzip
import json

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc.aio as triton_grpc
import tritonclient.http.aio as triton_http
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as config_pb
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

from serving.backends.ray.oip_plane import OipPlane
from serving.backends.ray.oip_server import OipServer, grpc_options
from serving.backends.ray.served import FunctionEngine, ServedModel, function_models
from serving.errors import Unavailable
from serving.protocol.oip import InferResponse, Tensor
from serving.settings import LimitSettings

CONFIG = text_format.Parse(
    """
    name: "double" backend: "ray"
    input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] } ]
    output [ { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] }, { name: "NOTE" data_type: TYPE_STRING dims: [ 1 ] } ]
    """,
    config_pb.ModelConfig(),
)
LIMITS = LimitSettings(infer_bytes=1 << 20)


class Doubler:
    """Doubles X; sleeps first when the request says so, and keeps what happened."""

    def __init__(self):
        self.cancelled = asyncio.Event()
        self.entered = asyncio.Event()

    async def __call__(self, request):
        self.entered.set()
        if request.parameters.get("fail"):
            raise RuntimeError("secret path /x " * 100)
        if request.parameters.get("busy"):
            raise Unavailable("the queue is full")
        try:
            await asyncio.sleep(float(request.parameters.get("sleep_s", 0)))
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        outputs = (
            Tensor.from_elements("NOTE", [b"doubled"]),
            Tensor.from_array("Y", request.input("X").array() * 2),
        )
        return InferResponse(request.model_name, outputs=outputs)


@pytest.fixture
def doubler():
    return Doubler()


@pytest.fixture
async def ports(doubler):
    server = OipServer(OipPlane(function_models(doubler, {"double": CONFIG})), LIMITS)
    yield await server.start()
    await server.stop()


@pytest.fixture
async def http(ports):
    async with triton_http.InferenceServerClient(f"127.0.0.1:{ports[0]}") as client:
        yield client


@pytest.fixture
async def rpc(ports):
    async with triton_grpc.InferenceServerClient(f"127.0.0.1:{ports[1]}") as client:
        yield client


@pytest.fixture
async def curl(ports):
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports[0]}") as client:
        yield client


def inputs(kind, values=(1.0, 2.5)):
    tensor = kind.InferInput("X", [len(values)], "FP32")
    tensor.set_data_from_numpy(np.array(values, np.float32))
    return [tensor]


@pytest.mark.parametrize("version", ["", "1"])
async def test_tritonclient_infers_by_http_and_grpc(http, rpc, version):
    for client, kind in ((http, triton_http), (rpc, triton_grpc)):
        result = await client.infer("double", inputs(kind), model_version=version, request_id="r7")
        assert result.as_numpy("Y").tolist() == [2.0, 5.0]
        assert result.as_numpy("NOTE").tolist() == [b"doubled"]
        response = result.get_response()
        assert (response["id"] if kind is triton_http else response.id) == "r7"


async def test_only_the_outputs_asked_for_come_back_in_that_order(http, rpc):
    result = await rpc.infer("double", inputs(triton_grpc), outputs=[triton_grpc.InferRequestedOutput("Y")])
    assert [output.name for output in result.get_response().outputs] == ["Y"]
    wanted = [triton_http.InferRequestedOutput(name) for name in ("Y", "NOTE")]
    result = await http.infer("double", inputs(triton_http), outputs=wanted)
    assert [output["name"] for output in result.get_response()["outputs"]] == ["Y", "NOTE"]


async def test_health_metadata_config_and_statistics_say_the_same_on_both_wires(http, rpc):
    await http.infer("double", inputs(triton_http))
    for client in (http, rpc):
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("double")
        assert not await client.is_model_ready("nobody")
    assert (await http.get_server_metadata())["name"] == (await rpc.get_server_metadata()).name == "reelmesh"
    by_http = await http.get_model_metadata("double")
    by_grpc = await rpc.get_model_metadata("double", as_json=True)
    assert by_http["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1]}]
    assert by_grpc["inputs"][0] == {"name": "X", "datatype": "FP32", "shape": ["-1"]}
    assert (await http.get_model_config("double"))["output"][0]["dims"] == [-1]
    assert (await rpc.get_model_config("double")).config == CONFIG
    assert (await http.get_inference_statistics("double"))["model_stats"][0]["inference_count"] == 1
    assert (await rpc.get_inference_statistics()).model_stats[0].inference_stats.success.count == 1


UNKNOWN = [
    ("nobody", "", "Request for unknown model: 'nobody' is not found", "404", "StatusCode.NOT_FOUND"),
    ("double", "9", "Request for unknown model: 'double' version 9 is not found", "404", "StatusCode.NOT_FOUND"),
    ("double", "x", "model version from specified version string 'x'", "400", "StatusCode.INVALID_ARGUMENT"),
]


@pytest.mark.parametrize(("model", "version", "problem", "status", "code"), UNKNOWN, ids=["model", "version", "word"])
async def test_an_unknown_model_is_refused_in_tritons_words(ports, model, version, problem, status, code):
    for kind, port, expected in ((triton_http, ports[0], status), (triton_grpc, ports[1], code)):
        async with kind.InferenceServerClient(f"127.0.0.1:{port}") as client:
            with pytest.raises(InferenceServerException, match=problem) as caught:
                await client.infer(model, inputs(kind), model_version=version)
        assert caught.value.status() == expected


@pytest.mark.parametrize(
    ("parameters", "status", "code"),
    [
        ({"fail": True}, "500", "INTERNAL"),
        ({"busy": True}, "503", "UNAVAILABLE"),
        ({"sleep_s": 5, "timeout": 20_000}, "504", "DEADLINE_EXCEEDED"),
    ],
    ids=["engine-fails", "queue-full", "timeout"],
)
async def test_failures_keep_their_kind_on_both_wires(http, rpc, parameters, status, code):
    timeout = parameters.pop("timeout", None)
    with pytest.raises(InferenceServerException) as caught:
        await http.infer("double", inputs(triton_http), parameters=parameters, timeout=timeout)
    assert caught.value.status() == status
    assert len(caught.value.message()) < 400
    with pytest.raises(InferenceServerException) as caught:
        await rpc.infer("double", inputs(triton_grpc), parameters=parameters, timeout=timeout)
    assert caught.value.status() == f"StatusCode.{code}"


async def test_a_grpc_client_that_gives_up_cancels_the_work(rpc, doubler):
    # The client and the replica both watch the deadline, in words of their own.
    with pytest.raises(InferenceServerException, match="DEADLINE_EXCEEDED"):
        await rpc.infer("double", inputs(triton_grpc), parameters={"sleep_s": 30}, client_timeout=0.2)
    await asyncio.wait_for(doubler.cancelled.wait(), 2)


async def test_an_http_client_that_goes_away_cancels_the_work(http, doubler):
    waiting = asyncio.create_task(http.infer("double", inputs(triton_http), parameters={"sleep_s": 30}))
    await asyncio.wait_for(doubler.entered.wait(), 2)
    waiting.cancel()
    await asyncio.wait_for(doubler.cancelled.wait(), 2)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
async def test_compressed_requests_are_read(http, rpc, algorithm):
    result = await http.infer("double", inputs(triton_http), request_compression_algorithm=algorithm)
    assert result.as_numpy("Y").tolist() == [2.0, 5.0]
    result = await rpc.infer("double", inputs(triton_grpc), compression_algorithm=algorithm)
    assert result.as_numpy("Y").tolist() == [2.0, 5.0]


async def test_a_raw_request_needs_no_json(curl):
    body = np.array([1, 2], np.float32).tobytes()
    headers = {"Inference-Header-Content-Length": "0"}
    answer = await curl.post("/v2/models/double/infer", content=body, headers=headers)
    assert answer.json()["outputs"][1]["data"] == [2.0, 4.0]


HOSTILE = [
    ("deep", b"[" * 100_000, {}, 400, "nested more than 64"),
    ("bomb", gzip.compress(bytes(3 << 20)), {"content-encoding": "gzip"}, 413, "over 1048576 bytes"),
    ("not-gzip", b"abc", {"content-encoding": "gzip"}, 400, "not gzip"),
    ("half-gzip", gzip.compress(b"{}" * 99)[:-9], {"content-encoding": "gzip"}, 400, "ends too early"),
    ("brotli", b"abc", {"content-encoding": "br"}, 501, "not supported"),
    ("length", b"{}", {"inference-header-content-length": "3"}, 400, "past the end"),
    ("negative", b"{}", {"inference-header-content-length": "-3"}, 400, "must be a number"),
    ("too-large", bytes((1 << 20) + 1), {}, 413, "over 1048576 bytes"),
    ("empty", b"", {}, 400, "request body"),
]


@pytest.mark.parametrize(
    ("body", "headers", "status", "problem"), [case[1:] for case in HOSTILE], ids=[c[0] for c in HOSTILE]
)
async def test_hostile_bodies_are_refused_and_the_server_lives(curl, body, headers, status, problem):
    answer = await curl.post("/v2/models/double/infer", content=body, headers=headers)
    assert answer.status_code == status
    assert problem in answer.json()["error"]
    assert (await curl.get("/v2/health/ready")).status_code == 200


async def test_a_body_of_unknown_length_is_bounded_too(curl):
    async def endless():
        while True:
            yield bytes(65536)

    try:
        answer = await curl.post("/v2/models/double/infer", content=endless())
    except httpx.TransportError:
        return  # the server closed while we were still sending, which is right too
    assert answer.status_code == 413


async def test_unknown_paths_and_methods_answer_in_the_protocols_form(curl):
    assert "error" in (await curl.get("/v2/nothing")).json()
    answer = await curl.get("/v2/models/double/infer")
    assert answer.status_code == 405
    assert "error" in answer.json()


async def test_metrics_count_requests_by_outcome(curl, http):
    await http.infer("double", inputs(triton_http))
    text = (await curl.get("/metrics")).text
    assert 'reelmesh_requests_total{model="double",outcome="ok",protocol="http"}' in text


async def test_calls_that_are_not_served_answer_unimplemented(ports):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{ports[1]}") as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for call in (
            stub.TraceSetting(pb.TraceSettingRequest()),
            stub.LogSettings(pb.LogSettingsRequest()),
            stub.CudaSharedMemoryRegister(pb.CudaSharedMemoryRegisterRequest(name="r", byte_size=1)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_a_grpc_message_over_the_limit_is_refused_and_the_server_lives(ports, rpc):
    big = inputs(triton_grpc, np.zeros((3 << 20) // 4))
    with pytest.raises(InferenceServerException) as caught:
        await rpc.infer("double", big)
    assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
    assert await rpc.is_server_ready()


async def test_stop_lets_requests_in_flight_finish_and_closes_the_ports(doubler):
    server = OipServer(OipPlane(function_models(doubler, {"double": CONFIG})), LIMITS)
    http_port, grpc_port = await server.start()
    async with (
        triton_http.InferenceServerClient(f"127.0.0.1:{http_port}") as http,
        triton_grpc.InferenceServerClient(f"127.0.0.1:{grpc_port}") as rpc,
    ):
        slow = {"sleep_s": 0.5}
        calls = [
            asyncio.create_task(http.infer("double", inputs(triton_http), parameters=slow)),
            asyncio.create_task(rpc.infer("double", inputs(triton_grpc), parameters=slow)),
        ]
        await asyncio.sleep(0.2)
        await server.stop()
        for call in calls:
            assert (await call).as_numpy("Y").tolist() == [2.0, 5.0]
    for port in (http_port, grpc_port):
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await asyncio.open_connection("127.0.0.1", port)


def test_grpc_messages_may_be_a_little_larger_than_bodies():
    assert dict(grpc_options(64 << 20))["grpc.max_receive_message_length"] > 64 << 20
    assert json.dumps(grpc_options(1))


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
async def test_responses_are_compressed_where_the_client_asks(http, curl, algorithm):
    many = [1.0] * 500
    result = await http.infer("double", inputs(triton_http, many), response_compression_algorithm=algorithm)
    assert result.as_numpy("Y").tolist() == [2.0] * 500
    body = {"inputs": [{"name": "X", "shape": [500], "datatype": "FP32", "data": many}]}
    answer = await curl.post("/v2/models/double/infer", json=body, headers={"accept-encoding": algorithm})
    assert answer.headers["content-encoding"] == algorithm
    assert answer.json()["outputs"][1]["data"] == [2.0] * 500


async def test_a_full_queue_says_when_to_come_back_on_both_wires():
    doubler = Doubler()
    plane = OipPlane([ServedModel(CONFIG, ("1",), FunctionEngine(doubler), waiting=0)])
    server = OipServer(plane, LIMITS)
    http_port, grpc_port = await server.start()
    body = {"parameters": {"sleep_s": 30}, "inputs": [{"name": "X", "shape": [1], "datatype": "FP32", "data": [1]}]}
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{http_port}") as curl,
        triton_grpc.InferenceServerClient(f"127.0.0.1:{grpc_port}") as rpc,
    ):
        running = asyncio.create_task(curl.post("/v2/models/double/infer", json=body))
        await doubler.entered.wait()
        answer = await curl.post("/v2/models/double/infer", json=body)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json() == {"error": "Exceeds maximum queue size"}
        with pytest.raises(InferenceServerException, match="Exceeds maximum queue size") as caught:
            await rpc.infer("double", inputs(triton_grpc))
        assert caught.value.status() == "StatusCode.UNAVAILABLE"
        running.cancel()
    await server.stop()
    await plane.close(0)
