"""Warm-up by the samples of config.pbtxt."""

import asyncio

import numpy as np
import pytest
from google.protobuf import text_format
from structlog.testing import capture_logs
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.backends.ray import warm_up as module
from serving.backends.ray.warm_up import warm_up
from serving.errors import BadInput, EngineFailed
from serving.protocol.oip import InferResponse

CONFIG = """
    name: "m" max_batch_size: 4
    input { name: "X" data_type: TYPE_FP32 dims: [ 2 ] }
    input { name: "T" data_type: TYPE_STRING dims: [ -1 ] }
    output { name: "Y" data_type: TYPE_FP32 dims: [ 2 ] }
"""
TEXT = '{ key: "T" value { data_type: TYPE_STRING dims: [ 2 ] zero_data: true } }'


class Engine:
    def __init__(self, answer=None):
        self.batches, self.answer = [], answer or InferResponse("m")

    async def execute(self, requests):
        await asyncio.sleep(0)
        self.batches.append(requests)
        return [self.answer for _ in requests]

    async def stream(self, request):
        self.batches.append([request])
        yield self.answer


def config_of(x="zero_data: true", dims=2, more="", extra=""):
    given = f'{{ key: "X" value {{ data_type: TYPE_FP32 dims: [ {dims} ] {x} }} }}'
    sample = f'model_warmup {{ name: "s" {more} inputs: {given} inputs: {TEXT} }}'
    return text_format.Parse(CONFIG + sample + extra, ModelConfig())


async def test_a_sample_is_run_as_often_as_it_says_as_rows_of_one_batch_on_every_instance(tmp_path):
    engine = Engine()
    config = config_of(more="batch_size: 3 count: 2", extra="instance_group { count: 2 kind: KIND_CPU }")
    await warm_up(tmp_path, config, "7", engine)
    assert [len(batch) for batch in engine.batches] == [3] * 4
    request = engine.batches[0][0]
    assert (request.model_name, request.model_version) == ("m", "7")
    tensors = {tensor.name: tensor for tensor in request.inputs}
    assert tensors["X"].array().tolist() == [[0, 0]]
    assert tensors["T"].array().tolist() == [[b"", b""]]


async def test_random_numbers_are_numbers_and_files_are_taken_as_they_are(tmp_path):
    engine = Engine()
    await warm_up(tmp_path, config_of("random_data: true"), "1", engine)
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup/x").write_bytes(np.array([3, 4], np.float32).tobytes())
    await warm_up(tmp_path, config_of('input_data_file: "x"'), "1", engine)
    random, given = (next(tensor for tensor in batch[0].inputs if tensor.name == "X") for batch in engine.batches)
    assert all(0 <= number < 1 for number in random.array().ravel())
    assert given.array().tolist() == [[3, 4]]


async def test_a_decoupled_model_is_warmed_up_to_its_last_response(tmp_path):
    engine = Engine()
    await warm_up(tmp_path, config_of(extra="model_transaction_policy { decoupled: true }"), "1", engine)
    assert len(engine.batches) == 1


async def test_a_sample_on_which_the_model_fails_is_logged_alone(tmp_path):
    with capture_logs() as lines:
        await warm_up(tmp_path, config_of(), "1", Engine(EngineFailed("too cold")))
    assert [(line["event"], "too cold" in line["error"]) for line in lines] == [("warm_up_failed", True)]


WRONG = {
    "batch": (config_of(more="batch_size: 5"), "batch_size 5 is over max_batch_size 4"),
    "no-data": (config_of(""), "has no data_type or no data"),
    "shape": (config_of(dims=3), "unexpected shape for input 'X'"),
    "negative": (config_of(dims=-1), "negative size"),
    "huge": (config_of(dims=10**12), "more than"),
    "missing": (config_of('input_data_file: "nothing"'), "there is no file warmup/nothing"),
    "up": (config_of('input_data_file: "../secret"'), "is no file of the folder warmup"),
    "short": (config_of('input_data_file: "short"'), "has 3 bytes, not 8"),
}


@pytest.mark.parametrize(("config", "problem"), WRONG.values(), ids=WRONG.keys())
async def test_a_sample_that_cannot_be_made_is_refused(tmp_path, config, problem):
    (tmp_path / "warmup").mkdir()
    (tmp_path / "secret").write_bytes(bytes(8))
    (tmp_path / "warmup/short").write_bytes(bytes(3))
    with pytest.raises(BadInput, match=problem):
        await warm_up(tmp_path, config, "1", Engine())


async def test_a_warm_up_does_not_go_on_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WARM_UP_S", 0.05)
    with pytest.raises(BadInput, match="takes longer than"):
        await warm_up(tmp_path, config_of(more=f"count: {2**32 - 1}"), "1", Engine())
