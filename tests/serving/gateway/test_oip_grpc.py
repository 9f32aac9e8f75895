"""The control plane over gRPC, without an edge: what is passed on, and what is refused."""

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

from serving.backends.ray.oip_plane import OipPlane
from serving.backends.ray.oip_server import OipServer, grpc_options
from serving.backends.ray.served import function_models
from serving.gateway.oip_grpc import oip_handler
from serving.protocol.endpoint import Endpoint
from serving.protocol.oip_grpc import SERVICE
from serving.settings import LimitSettings
from tests.serving.edge.replica import echo_config, echoing

LIMITS = LimitSettings(infer_bytes=1 << 20)


@pytest.fixture
async def channel():
    replica = OipServer(OipPlane(function_models(echoing("one"), {"echo": echo_config()})), LIMITS)
    http, rpc = await replica.start()
    found = [Endpoint(model="echo", http=f"127.0.0.1:{http}", grpc=f"127.0.0.1:{rpc}")]
    found.append(Endpoint(model="gone", http="127.0.0.1:9", grpc="127.0.0.1:9"))

    async def endpoints():
        return found

    server = grpc.aio.server(options=grpc_options(LIMITS.infer_bytes))
    server.add_generic_rpc_handlers((oip_handler(endpoints, LIMITS, ["echo", "absent"]),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)
    await replica.stop()


async def call(channel, name, message, within_s=5):
    data = message if isinstance(message, bytes) else message.SerializeToString()
    return await channel.unary_unary(f"/{SERVICE}/{name}")(data, timeout=within_s)


def echo(**fields):
    tensor = {"name": "X", "datatype": "FP32", "shape": [1]}
    return pb.ModelInferRequest(
        **{"model_name": "echo", "inputs": [tensor], "raw_input_contents": [bytes(4)], **fields}
    )


async def test_inference_is_passed_on_as_it_came(channel):
    answer = pb.ModelInferResponse.FromString(await call(channel, "ModelInfer", echo(id="r1")))
    assert (answer.id, answer.raw_output_contents[0]) == ("r1", bytes(4))


CASES = {
    "unknown": ("ModelInfer", echo(model_name="nobody"), "NOT_FOUND", "Request for unknown model: 'nobody'"),
    "absent": ("ModelConfig", pb.ModelConfigRequest(name="absent"), "UNAVAILABLE", "no replica of the model"),
    "gone": ("ModelMetadata", pb.ModelMetadataRequest(name="gone"), "UNAVAILABLE", ""),
    "replica-says": ("ModelInfer", echo(model_version="9"), "NOT_FOUND", "'echo' version 9 is not found"),
    "garbage": ("ModelInfer", b"\xff\xff\xff", "INVALID_ARGUMENT", "is no ModelInferRequest"),
    "truncated": ("ModelConfig", b"\x0a\x20abc", "INVALID_ARGUMENT", "is no ModelConfigRequest"),
    "unserved": ("TraceSetting", b"", "UNIMPLEMENTED", ""),
    "deadline": (
        "ModelInfer",
        echo(parameters={"sleep_s": {"double_param": 30}}),
        "DEADLINE_EXCEEDED",
        "",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_refusals_keep_their_status_and_words(channel, case):
    name, message, status, problem = case
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, name, message, within_s=1)
    assert caught.value.code().name == status
    assert problem in caught.value.details()


async def test_readiness_is_an_answer_and_no_error(channel):
    for model, ready in (("echo", True), ("absent", False), ("nobody", False)):
        answer = await call(channel, "ModelReady", pb.ModelReadyRequest(name=model))
        assert pb.ModelReadyResponse.FromString(answer).ready is ready
    assert not pb.ServerReadyResponse.FromString(await call(channel, "ServerReady", b"")).ready


async def test_statistics_leave_out_a_replica_that_does_not_answer(channel):
    await call(channel, "ModelInfer", echo())
    answer = pb.ModelStatisticsResponse.FromString(await call(channel, "ModelStatistics", b"", within_s=15))
    assert [(each.name, each.inference_count) for each in answer.model_stats] == [("echo", 1)]
