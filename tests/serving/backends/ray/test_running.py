"""One served model with requests in flight."""

import asyncio

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.backends.ray.running import RunningModel
from serving.backends.ray.served import ServedModel
from serving.errors import QueueFull
from serving.protocol.oip import InferRequest, InferResponse, Tensor

CONFIG = text_format.Parse(
    """
    name: "m" backend: "ray" model_transaction_policy { decoupled: true }
    input [ { name: "X" data_type: TYPE_FP32 dims: [ 1 ] } ] output [ { name: "Y" data_type: TYPE_FP32 dims: [ 1 ] } ]
    """,
    ModelConfig(),
)
ASKED = InferRequest("m", "1", inputs=(Tensor.from_array("X", np.zeros(1, np.float32)),))


class Slow:
    """Answers once, when told to."""

    def __init__(self):
        self.go_on = asyncio.Event()

    async def stream(self, request):
        await self.go_on.wait()
        yield InferResponse("m")

    async def close(self):
        """Nothing to do."""


async def test_a_decoupled_model_that_is_full_says_when_one_of_its_streams_will_have_ended():
    engine = Slow()
    running = RunningModel(ServedModel(CONFIG, ("1",), engine, instances=2))

    async def ask():
        return [answer async for answer in running.stream(ASKED, "grpc")]

    tasks = [asyncio.create_task(ask()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFull) as caught:
        await ask()
    assert caught.value.retry_after_s == 1
    running._pace.measured(14.2 / 2)
    with pytest.raises(QueueFull) as caught:
        await ask()
    assert caught.value.retry_after_s == 8
    engine.go_on.set()
    assert [len(answers) for answers in await asyncio.gather(*tasks)] == [1, 1]
    assert running._pace.retry_after_s(1) < 8
    await running.retire(0)
