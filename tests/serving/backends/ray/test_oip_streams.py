"""Streams of a replica: ModelStreamInfer, generate and generate_stream, with decoupled models and ordinary ones."""

import asyncio
import json
import queue

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_sync
import tritonclient.grpc.aio as triton_grpc
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as config_pb
from tritonclient.utils import InferenceServerException

from serving.backends.ray.oip_plane import OipPlane
from serving.backends.ray.oip_server import OipServer
from serving.backends.ray.served import ServedModel
from serving.errors import BadInput
from serving.protocol.oip import InferResponse, Tensor
from serving.settings import LimitSettings

CONFIG = """
name: "%s" backend: "ray"
input [ { name: "N" data_type: TYPE_INT32 dims: [ 1 ] } ]
output [ { name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] } ]
"""
DECOUPLED = "model_transaction_policy { decoupled: true }"


def config(name, more=""):
    return text_format.Parse(CONFIG % name + more, config_pb.ModelConfig())


def number(value):
    return Tensor.from_array("OUT", np.array([value], np.int32))


class Counter:
    """Decoupled: counts up to N; ordinary: answers N after N/100 seconds. Fails below 0."""

    def __init__(self):
        self.closed = asyncio.Event()

    async def execute(self, requests):
        asked = int(requests[0].input("N").array()[0])
        await asyncio.sleep(asked / 100)
        if asked < 0:
            raise BadInput("below zero", field="N")
        return [InferResponse(requests[0].model_name, outputs=(number(asked),))]

    async def stream(self, request):
        asked = int(request.input("N").array()[0])
        try:
            for value in range(abs(asked)):
                yield InferResponse(request.model_name, outputs=(number(value),))
                await asyncio.sleep(0.001)
            if asked < 0:
                raise BadInput("below zero", field="N")
        finally:
            self.closed.set()

    async def close(self):
        """Nothing is held."""


@pytest.fixture
def counter():
    return Counter()


@pytest.fixture
async def ports(counter):
    models = [
        ServedModel(config("count", DECOUPLED), ("1",), counter),
        ServedModel(config("wait", "instance_group [ { count: 9 } ]"), ("1",), counter),
    ]
    plane = OipPlane(models)
    server = OipServer(plane, LimitSettings())
    yield await server.start()
    await server.stop()
    await plane.close(0)


@pytest.fixture
async def rpc(ports):
    async with triton_grpc.InferenceServerClient(f"127.0.0.1:{ports[1]}") as client:
        yield client


@pytest.fixture
async def curl(ports):
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports[0]}") as client:
        yield client


def given(value):
    tensor = triton_grpc.InferInput("N", [1], "INT32")
    tensor.set_data_from_numpy(np.array([value], np.int32))
    return [tensor]


async def stream(rpc, *asked, **options):
    async def requests():
        for index, (model, value) in enumerate(asked):
            yield {"model_name": model, "inputs": given(value), "request_id": str(index), **options}

    found = []
    async for result, error in rpc.stream_infer(requests()):
        if error is not None:
            found.append(str(error))
            continue
        response = result.get_response()
        values = result.as_numpy("OUT")
        found.append((response.id, None if values is None else int(values[0])))
    return found


async def test_ordinary_models_answer_in_the_order_of_their_requests(rpc):
    assert await stream(rpc, ("wait", 10), ("wait", 0), ("wait", 5)) == [("0", 10), ("1", 0), ("2", 5)]


async def test_a_decoupled_model_gives_any_number_of_responses_beside_others(rpc):
    found = await stream(rpc, ("wait", 10), ("count", 3), ("count", 0))
    assert [value for name, value in found if name == "1"] == [0, 1, 2]
    assert found[-1] == ("0", 10)
    assert len(found) == 4


def streamed(address, *asked):
    """The same with the client that can ask for empty final responses."""
    found = queue.Queue()

    def keep(result, error):
        assert error is None
        response = result.get_response()
        found.put((response.id, len(response.outputs), response.parameters["triton_final_response"].bool_param))

    with triton_sync.InferenceServerClient(address) as client:
        client.start_stream(keep)
        for index, (model, value) in enumerate(asked):
            client.async_stream_infer(model, given(value), request_id=str(index), enable_empty_final_response=True)
        client.stop_stream()
    return sorted(found.queue)


async def test_an_empty_final_response_comes_when_asked_for(ports):
    found = await asyncio.to_thread(streamed, f"127.0.0.1:{ports[1]}", ("count", 1), ("count", 0), ("wait", 1))
    assert found == [("0", 0, True), ("0", 1, False), ("1", 0, True), ("2", 1, True)]


async def test_errors_are_told_inside_the_stream_which_goes_on(rpc):
    found = await stream(rpc, ("nobody", 1), ("wait", -1), ("count", -1), ("wait", 1))
    assert len(found) == 5
    assert any("unknown model" in entry for entry in found)
    assert sum("below zero" in entry for entry in found if isinstance(entry, str)) == 2
    assert ("3", 1) in found


async def test_unary_calls_of_a_decoupled_model_are_refused_in_tritons_words(rpc, curl):
    with pytest.raises(
        InferenceServerException, match="ModelInfer RPC doesn't support models with decoupled"
    ) as caught:
        await rpc.infer("count", given(1))
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
    body = {"inputs": [{"name": "N", "shape": [1], "datatype": "INT32", "data": [1]}]}
    answer = await curl.post("/v2/models/count/infer", json=body)
    assert answer.status_code == 501
    assert "HTTP end point doesn't support models with decoupled" in answer.json()["error"]


async def test_a_stream_that_is_cancelled_cancels_its_work(rpc, counter):
    async def requests():
        yield {"model_name": "count", "inputs": given(10**6)}
        await asyncio.sleep(60)

    responses = rpc.stream_infer(requests())
    await anext(aiter(responses))
    responses.cancel()
    await asyncio.wait_for(counter.closed.wait(), 2)


async def test_statistics_of_a_decoupled_model_tell_its_responses(rpc):
    await stream(rpc, ("count", 2))
    stats = (await rpc.get_inference_statistics("count")).model_stats[0]
    assert stats.inference_stats.success.count == 1
    assert [stats.response_stats[index].success.count for index in ("0", "1")] == [1, 1]


async def test_generate_answers_plain_json(curl):
    answer = await curl.post("/v2/models/wait/generate", json={"N": 3, "id": "a"})
    assert answer.json() == {"id": "a", "model_name": "wait", "model_version": "1", "OUT": 3}
    assert (await curl.post("/v2/models/count/versions/1/generate", json={"N": 1})).json()["OUT"] == 0


@pytest.mark.parametrize(
    ("model", "body", "status", "problem"),
    [
        ("count", {"N": 2}, 400, "exactly 1 response"),
        ("count", {"N": 0}, 400, "exactly 1 response"),
        ("wait", {"N": -1}, 400, "below zero"),
        ("wait", {"N": "x"}, 400, "must be INT32"),
        ("wait", {}, 400, "expected 1 inputs"),
        ("nobody", {"N": 1}, 404, "unknown model"),
    ],
)
async def test_generate_refuses_with_the_protocols_errors(curl, model, body, status, problem):
    answer = await curl.post(f"/v2/models/{model}/generate", json=body)
    assert answer.status_code == status
    assert problem in answer.json()["error"]


async def test_generate_stream_sends_an_event_for_each_response(curl):
    answer = await curl.post("/v2/models/count/generate_stream", json={"N": 2})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
    assert [event["OUT"] for event in events] == [0, 1]


async def test_generate_stream_tells_errors_by_status_first_and_by_event_later(curl):
    answer = await curl.post("/v2/models/wait/generate_stream", json={"N": -1})
    assert answer.status_code == 400
    answer = await curl.post("/v2/models/count/generate_stream", json={"N": -1})
    assert answer.status_code == 200
    assert "below zero" in json.loads(answer.text.split("\n\n")[1].removeprefix("data: "))["error"]


async def test_a_client_that_leaves_an_event_stream_ends_its_work(curl, counter):
    async with curl.stream("POST", "/v2/models/count/generate_stream", json={"N": 10**6}) as answer:
        await anext(answer.aiter_lines())
    await asyncio.wait_for(counter.closed.wait(), 2)
