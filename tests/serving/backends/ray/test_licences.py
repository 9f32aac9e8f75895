"""A Ray replica keeps commercial work from its weights by itself, whichever way it comes."""

import shutil
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from serving.backends.call import Call
from serving.errors import LicenceForbids
from serving.protocol.licences import NON_COMMERCIAL, USE_HEADER, metadata_of
from serving.protocol.tasks import ImageRequest
from tests.serving.backends.ray.standing import repository, settings_of, standing

ROOT = Path(__file__).resolve().parents[4]
CARD = """\
description: for tests
task: tensor
backend: ray
engine: python
license: {name: CC-BY-NC-4.0, commercial_use: false}
source: {uri: "file:."}
"""
REASON = "the weights of 'add_sub' are under CC-BY-NC-4.0, which allows no commercial use"
FREE = metadata_of(NON_COMMERCIAL)
BODY = {
    "inputs": [
        {"name": name, "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]} for name in ("INPUT0", "INPUT1")
    ]
}


def message(model="add_sub"):
    data = np.ones(4, np.float32).tobytes()
    asked = pb.ModelInferRequest(model_name=model, raw_input_contents=[data, data])
    for name in ("INPUT0", "INPUT1"):
        asked.inputs.add(name=name, datatype="FP32", shape=[1, 4])
    return asked


@pytest.fixture
async def stands(tmp_path):
    folder = repository(tmp_path / "models", "add_sub")
    (folder / "add_sub" / "model.yaml").write_text(CARD)
    async with standing(settings_of(tmp_path)) as stands:
        yield stands


async def test_the_edge_is_told_why_commercial_work_is_refused(stands):
    (endpoint,) = stands.edge.beats[-1].endpoints
    assert (endpoint.task, endpoint.refuses) == ("", REASON)


async def test_http_inference_is_refused_unless_it_says_that_it_is_not_commercial(stands):
    async with httpx.AsyncClient(base_url=f"http://{stands.http_address}/v2/models/add_sub") as client:
        for call in ("infer", "versions/1/infer"):
            answer = await client.post(call, json=BODY)
            assert answer.status_code == 403
            assert answer.json()["error"].startswith(f"model: {REASON}: ")
            assert (await client.post(call, json=BODY, headers=dict(FREE))).status_code == 200
        generate = {"INPUT0": [1.0, 2.0, 3.0, 4.0], "INPUT1": [1.0, 2.0, 3.0, 4.0]}
        assert (await client.post("generate", json=generate)).status_code == 403
        assert (await client.post("generate", json=generate, headers={USE_HEADER: "commercial"})).status_code == 403
        assert (await client.post("generate", json=generate, headers=dict(FREE))).status_code == 200
        assert (await client.get("config")).status_code == 200, "reading about a model is no use of its weights"


async def test_grpc_inference_and_streams_are_refused_alike(stands):
    async with grpc.aio.insecure_channel(stands.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ModelInfer(message())
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert caught.value.details().startswith(f"model: {REASON}: ")
        assert (await stub.ModelInfer(message(), metadata=FREE)).outputs
        (refused,) = [each async for each in stub.ModelStreamInfer(iter([message()]))]
        assert refused.error_message.startswith(f"model: {REASON}: ")
        (told,) = [each async for each in stub.ModelStreamInfer(iter([message()]), metadata=FREE)]
        assert told.infer_response.outputs


async def test_a_model_that_asks_another_one_asks_for_commercial_work(tmp_path):
    folder = repository(tmp_path / "models", "add_sub", "ask")
    (folder / "add_sub" / "model.yaml").write_text(CARD)
    async with standing(settings_of(tmp_path)) as stands:
        config = stands.replica._plane.find("ask")[0]
        asked = pb.ModelInferRequest(model_name="ask")
        for tensor in config.input:
            asked.inputs.add(name=tensor.name, datatype="FP32", shape=[1, 4])
            asked.raw_input_contents.append(np.ones(4, np.float32).tobytes())
        async with grpc.aio.insecure_channel(stands.grpc_address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError, match="allows no commercial use"):
                await stub.ModelInfer(asked, metadata=FREE)


async def test_a_card_that_changes_is_obeyed_once_it_is_loaded(tmp_path):
    folder = repository(tmp_path / "models", "add_sub")
    async with standing(settings_of(tmp_path, model_control_mode="explicit", load_models=["*"])) as stands:
        assert stands.edge.beats[-1].endpoints[0].refuses == "", "a folder without a card, whose terms nobody named"
        (folder / "add_sub" / "model.yaml").write_text(CARD)
        assert (await stands.load("add_sub")).status_code == 200
        assert stands.edge.beats[-1].endpoints[0].refuses == REASON
        async with httpx.AsyncClient(base_url=f"http://{stands.http_address}/v2/models/add_sub") as client:
            assert (await client.post("infer", json=BODY)).status_code == 403


async def test_a_typed_request_is_refused_by_the_calls_use(tmp_path):
    home = Path(shutil.copytree(ROOT / "model_repository" / "image", tmp_path / "models" / "image"))
    card = (home / "model.yaml").read_text()
    assert "commercial_use: true" in card
    (home / "model.yaml").write_text(card.replace("commercial_use: true", "commercial_use: false"))
    async with standing(settings_of(tmp_path), group="render") as stands:
        (endpoint,) = stands.edge.beats[-1].endpoints
        assert endpoint.task == "image"
        ask = ImageRequest(prompt="x", width=64, height=64)
        with pytest.raises(LicenceForbids, match="allows no commercial use: no other model here does image"):
            await stands.replica.run("image", ask, Call())
        assert (await stands.replica.run("image", ask, Call(use=NON_COMMERCIAL))).image.size_bytes
