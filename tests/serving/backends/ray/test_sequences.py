"""Sequences over a scheduler, with an engine that adds up."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.backends.ray.batch_rules import rules_of
from serving.backends.ray.scheduler import Scheduler
from serving.backends.ray.sequence_rules import sequence_rules_of
from serving.backends.ray.sequences import Sequences
from serving.errors import BadInput, QueueFull
from serving.protocol.oip import InferRequest, InferResponse, Tensor
from serving.protocol.oip_statistics import ModelStatistics

CONFIG = text_format.Parse(
    """
    name: "sum" max_batch_size: 4 output [ { name: "Y" } ]
    sequence_batching {
      max_sequence_idle_microseconds: 100000 oldest { max_candidate_sequences: 2 }
      state [ { input_name: "SI" output_name: "SO" data_type: TYPE_INT32 dims: [ 1 ] } ]
    }""",
    ModelConfig(),
)


class Adder:
    """Adds X to the state; keeps which requests shared a batch."""

    def __init__(self):
        self.batches = []

    async def execute(self, requests):
        self.batches.append([request.id for request in requests])
        await asyncio.sleep(0.002)
        answers = []
        for request in requests:
            total = request.input("X").array() + request.input("SI").array()
            outputs = (Tensor.from_array("Y", total), Tensor.from_array("SO", total))
            answers.append(InferResponse("sum", id=request.id, outputs=outputs))
        return answers


@pytest.fixture
def adder():
    return Adder()


@pytest.fixture
async def sequences(adder):
    scheduler = Scheduler("sum", rules_of(CONFIG), adder, ModelStatistics())
    made = Sequences(sequence_rules_of(CONFIG), scheduler, 8)
    yield made
    await made.close()


def ask(sequence, value, flags="", name=""):
    parameters = {"sequence_id": sequence, "sequence_start": "s" in flags, "sequence_end": "e" in flags}
    tensor = Tensor.from_array("X", np.array([[value]], np.int32))
    return InferRequest("sum", "1", name, parameters, (tensor,))


async def total(sequences, *args):
    answer, _ = await sequences.run(ask(*args))
    assert [tensor.name for tensor in answer.outputs] == ["Y"]
    return int(answer.outputs[0].array()[0, 0])


async def test_a_sequence_is_answered_in_order_while_others_share_its_batches(sequences, adder):
    asked = [
        total(sequences, sequence, value, flags, f"{sequence}{value}")
        for value, flags in ((1, "s"), (2, ""), (3, "e"))
        for sequence in (7, "b")
    ]
    assert await asyncio.gather(*asked) == [1, 1, 3, 3, 6, 6]
    assert adder.batches == [["71", "b1"], ["72", "b2"], ["73", "b3"]]


async def test_the_first_request_must_say_start(sequences):
    words = "inference request for sequence 5 to model 'sum' must specify the START flag on the first request"
    with pytest.raises(BadInput, match=words):
        await sequences.run(ask(5, 1))
    assert await total(sequences, 5, 1, "se") == 1
    with pytest.raises(BadInput, match=words):
        await sequences.run(ask(5, 1))
    with pytest.raises(BadInput, match="non-zero or non-empty correlation ID"):
        await sequences.run(ask(0, 1, "s"))


async def test_a_start_in_mid_sequence_begins_anew(sequences):
    assert await total(sequences, 5, 1, "s") == 1
    assert await total(sequences, 5, 2, "s") == 2


async def test_an_idle_sequence_ends_and_leaves_its_slot_to_one_that_waits(sequences):
    await asyncio.gather(total(sequences, 1, 1, "s"), total(sequences, 2, 1, "s"))
    assert await asyncio.wait_for(total(sequences, 3, 5, "se"), 2) == 5
    with pytest.raises(BadInput, match="START"):
        await sequences.run(ask(1, 1))


async def test_a_cancelled_request_leaves_the_queue_and_the_sequence_goes_on(sequences):
    assert await total(sequences, 1, 1, "s") == 1
    running = asyncio.create_task(total(sequences, 1, 2))
    waiting = asyncio.create_task(total(sequences, 1, 100))
    await asyncio.sleep(0)
    waiting.cancel()
    assert await running == 3
    assert await total(sequences, 1, 3, "e") == 6
    assert sequences.waiting == 0


async def test_those_waiting_for_a_turn_are_bounded(sequences):
    tasks = [asyncio.create_task(total(sequences, 1, 1, "s" if not index else "")) for index in range(9)]
    await asyncio.sleep(0)
    sequences._scheduler._line.measured([None], 2.0)
    with pytest.raises(QueueFull, match="Exceeds maximum queue size") as caught:
        await sequences.run(ask(1, 1))
    # 8 wait for their turn, and the one whose turn it is may still be in the scheduler's line; each takes 2 s.
    assert caught.value.retry_after_s in (16, 18)
    assert (await asyncio.gather(*tasks))[-1] == 9


async def test_an_engine_that_fails_once_does_not_end_the_sequence(sequences, adder):
    assert await total(sequences, 1, 1, "s") == 1
    with pytest.raises(Exception, match="sum"):
        await sequences.run(replace(ask(1, 1), inputs=()))
    assert await total(sequences, 1, 1) == 2
