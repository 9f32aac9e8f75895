"""Triton's python-backend models inside a Ray replica, unchanged."""

import asyncio
import sys
import threading
import time

import numpy as np
import pytest

from serving.backends.ray.engines import load_tensor_engine
from serving.errors import BadInput, EngineFailed, Unsupported
from tests.serving.backends.ray.tensor_models import context, outputs_of, python_model, request


@pytest.fixture
async def load(tmp_path):
    engines = []

    def loaded(*args, ask=None, **more):
        engines.append(load_tensor_engine(python_model(*args, **more), context(tmp_path, ask)))
        return engines[-1]

    yield loaded
    for engine in engines:
        await engine.close()


def pair(left, right):
    return {name: np.array([values], np.float32) for name, values in (("INPUT0", left), ("INPUT1", right))}


def words(*texts):
    return np.array([list(texts)], object)


async def test_add_sub_answers_a_batch(load):
    engine = load("add_sub")
    asked = [request("add_sub", **pair([1, 2, 3, 4], [1, 1, 1, 1])), request("add_sub", **pair([0] * 4, [1] * 4))]
    first, second = await engine.execute(asked)
    assert outputs_of(first) == {"OUTPUT0": [[2, 3, 4, 5]], "OUTPUT1": [[0, 1, 2, 3]]}
    assert outputs_of(second)["OUTPUT1"] == [[-1, -1, -1, -1]]
    (only,) = await engine.execute([request("add_sub", ("OUTPUT1",), **pair([1] * 4, [1] * 4))])
    assert [tensor.name for tensor in only.outputs] == ["OUTPUT1"]


async def test_a_model_completes_its_own_config(load, tmp_path):
    engine = load("add_sub", folder=tmp_path, config='backend: "python"')
    assert [tensor.name for tensor in engine.config.input] == ["INPUT0", "INPUT1"]
    assert list(engine.config.output[0].dims) == [4]


async def test_a_decoupled_model_streams_from_its_own_threads(load):
    engine = load("repeat")
    asked = request(
        "repeat",
        IN=np.array([7, 8, 9], np.int32),
        DELAY=np.array([1, 1, 1], np.uint32),
        WAIT=np.array([0], np.uint32),
    )
    found = [outputs_of(response) async for response in engine.stream(asked)]
    assert [each["OUT"] for each in found] == [[7], [8], [9]]
    assert [each["IDX"] for each in found] == [[0], [1], [2]]


async def test_sequences_stay_with_their_instance(load):
    engine = load("accumulate")
    totals = {}
    for step in range(3):
        for sequence in range(1, 9):
            inputs = {
                "INPUT": np.array([[sequence]], np.int32),
                "START": np.array([[step == 0]], np.int32),
                "CORRID": np.array([[sequence]], np.uint64),
            }
            (answer,) = await engine.execute([request("accumulate", parameters={"sequence_id": sequence}, **inputs)])
            totals[sequence] = outputs_of(answer)["OUTPUT"][0][0]
    assert totals == {sequence: 3 * sequence for sequence in range(1, 9)}


async def test_strings_parameters_and_files_beside_the_model(load):
    engine = load("strings")
    (answer,) = await engine.execute([request("strings", TEXT=words(b"a", "é".encode(), b"\xff\x00"))])
    assert outputs_of(answer)["TEXT"] == [[b"a", "é".encode(), b"\xff\x00"]]
    assert answer.parameters == {"seen": 3}
    assert "helper" not in sys.modules
    assert "triton_python_backend_utils" not in sys.modules


async def test_a_models_error_is_its_requests_own(load):
    engine = load("strings")
    good, bad = request("strings", TEXT=words(b"a")), request("strings", TEXT=words(b"fail"))
    first, wrong, last = await engine.execute([good, bad, good])
    assert outputs_of(first) == outputs_of(last) == {"TEXT": [[b"a"]]}
    assert isinstance(wrong, BadInput)
    assert str(wrong) == "cannot do that"


async def test_a_model_that_raises_fails_its_batch_and_lives(load):
    engine = load("strings")
    (wrong,) = await engine.execute([request("strings", TEXT=words(b"raise"))])
    assert isinstance(wrong, EngineFailed)
    assert str(wrong) == (
        "Failed to process the request(s) for model instance 'strings_0_0', message: ValueError: cannot do that"
    )
    (answer,) = await engine.execute([request("strings", TEXT=words(b"a"))])
    assert outputs_of(answer)["TEXT"] == [[b"a"]]


async def test_models_ask_each_other(load):
    add_sub = load("add_sub")

    async def ask(asked):
        (answer,) = await add_sub.execute([asked])
        yield answer

    engine = load("ask", ask=ask)
    (answer,) = await engine.execute([request("ask", X=np.array([[1, 2, 3, 4]], np.float32))])
    assert outputs_of(answer)["Y"] == [[2, 4, 6, 8]]


async def test_instances_run_side_by_side(load, tmp_path):
    source = """
import threading
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def execute(self, requests):
        barrier = threading.main_thread().barrier
        barrier.wait(5)
        return [pb_utils.InferenceResponse([]) for _ in requests]
"""
    threading.main_thread().barrier = threading.Barrier(2)
    engine = load("add_sub", folder=tmp_path, source=source)
    asked = request("add_sub", **pair([0] * 4, [0] * 4))
    answers = await asyncio.gather(engine.execute([asked]), engine.execute([asked]))
    assert [answer.outputs for (answer,) in answers] == [(), ()]
    del threading.main_thread().barrier


async def test_the_loop_stays_free_and_a_cancel_reaches_the_model(load, tmp_path):
    source = """
import time
import numpy as np
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def execute(self, requests):
        sender = requests[0].get_response_sender()
        while not sender.is_cancelled():
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([1], np.int32))]))
        open(pb_utils.get_model_dir() + "/cancelled", "w").close()
"""
    engine = load("repeat", folder=tmp_path, source=source)
    zero = np.zeros(1, np.uint32)
    stream = engine.stream(request("repeat", IN=np.zeros(1, np.int32), DELAY=zero, WAIT=zero))
    assert outputs_of(await anext(stream))["OUT"] == [1]
    began = time.monotonic()
    await stream.aclose()
    assert time.monotonic() - began < 2
    assert (tmp_path / "repeat/1/cancelled").exists()


ANSWERS = [
    ("none", "None", "sent 0 responses"),
    ("short", "[]", "number of InferenceResponse objects do not match number of InferenceRequest objects"),
    ("number", "7", "Expected a list in the execute return, found type 'int'"),
    ("words", "['x'] * len(requests)", "Expected an 'InferenceResponse' object in the execute function return list"),
    ("exit", "exit(3)", "SystemExit"),
    ("complex", "[pb_utils.InferenceResponse([pb_utils.Tensor('TEXT', 1j)])]", "cannot travel"),
]


@pytest.mark.parametrize(("answer", "problem"), [case[1:] for case in ANSWERS], ids=[case[0] for case in ANSWERS])
async def test_answers_that_are_none_are_told_in_tritons_words(load, tmp_path, answer, problem):
    source = f"""
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def execute(self, requests):
        if "{answer}" == "None":
            requests[0].get_response_sender().send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        return {answer}
"""
    engine = load("strings", folder=tmp_path, source=source)
    (wrong,) = await engine.execute([request("strings", TEXT=words(b"a"))])
    assert isinstance(wrong, EngineFailed)
    assert problem in str(wrong)


LOADS = [
    ("syntax", "def", "SyntaxError"),
    ("class", "x = 1", "there is no class TritonPythonModel"),
    ("initialize", "class TritonPythonModel:\n    def initialize(self, args): raise KeyError('w')", "KeyError: 'w'"),
    ("import", "import nowhere_to_be_found", "ModuleNotFoundError"),
]


@pytest.mark.parametrize(("source", "problem"), [case[1:] for case in LOADS], ids=[case[0] for case in LOADS])
async def test_a_model_that_does_not_load_says_why(load, tmp_path, source, problem):
    before = threading.active_count()
    with pytest.raises(BadInput, match=problem):
        load("strings", folder=tmp_path, source=source)
    assert threading.active_count() == before


async def test_an_environment_of_its_own_needs_triton(load, tmp_path):
    config = 'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "env.tar.gz" } }'
    with pytest.raises(Unsupported, match="let Triton serve"):
        load("strings", folder=tmp_path, config=config)
