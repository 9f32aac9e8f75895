"""ONNX models of task tensor in a Ray replica."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from serving.backends.ray.engines import load_tensor_engine
from serving.backends.ray.engines.tensor_onnx import INLINE_S, alike
from serving.errors import BadInput, EngineFailed, MissingDependency, Unsupported
from tests.serving.backends.ray.tensor_models import (
    PLUS_ONE,
    context,
    graph_of,
    onnx_model,
    outputs_of,
    plus_one_graph,
    request,
)


@pytest.fixture
async def plus_one(tmp_path: Path):
    engine = load_tensor_engine(onnx_model(tmp_path, "plus_one", PLUS_ONE, plus_one_graph()), context(tmp_path))
    yield engine
    await engine.close()


def row(*values):
    return np.array([values], np.float32)


async def test_a_batch_is_joined_and_each_request_gets_its_own_rows(plus_one):
    two = np.arange(8, dtype=np.float32).reshape(2, 4)
    answers = await plus_one.execute([request("plus_one", X=row(1, 2, 3, 4)), request("plus_one", X=two)])
    assert [outputs_of(answer)["Y"] for answer in answers] == [[[2, 3, 4, 5]], (two + 1).tolist()]
    assert [answer.outputs[0].datatype for answer in answers] == ["FP32", "FP32"]


async def test_a_short_model_is_run_where_it_is_asked_once_that_is_known(plus_one):
    for _ in range(40):
        (answer,) = await plus_one.execute([request("plus_one", X=row(0, 0, 0, 0))])
    assert plus_one._mean_s < INLINE_S
    assert outputs_of(answer)["Y"] == [[1, 1, 1, 1]]


async def test_what_config_leaves_out_is_completed_from_the_file(tmp_path):
    engine = load_tensor_engine(
        onnx_model(tmp_path, "bare", 'backend: "onnxruntime"', plus_one_graph()), context(tmp_path)
    )
    assert engine.config.max_batch_size == 4
    assert engine.config.HasField("dynamic_batching")
    assert [list(tensor.dims) for tensor in (*engine.config.input, *engine.config.output)] == [[4], [4]]
    await engine.close()


async def test_optional_inputs_fall_back_to_the_files_own_values(tmp_path):
    graph = graph_of(
        [helper.make_node("Add", ["X", "B"], ["Y"])],
        [("X", TensorProto.FLOAT, ["n"]), ("B", TensorProto.FLOAT, [1])],
        [("Y", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.ones(1, np.float32), "B")],
    )
    config = """
        input { name: "X" data_type: TYPE_FP32 dims: [ -1 ] }
        input { name: "B" data_type: TYPE_FP32 dims: [ 1 ] optional: true }
        output { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] }
    """
    engine = load_tensor_engine(onnx_model(tmp_path, "optional", config, graph), context(tmp_path))
    x, b = np.zeros(2, np.float32), np.array([5], np.float32)
    answers = await engine.execute([request("optional", X=x), request("optional", X=x, B=b)])
    assert [outputs_of(answer)["Y"] for answer in answers] == [[1, 1], [5, 5]]
    await engine.close()


async def test_strings_are_utf8_and_others_fail_alone(tmp_path):
    graph = graph_of(
        [helper.make_node("StringConcat", ["X", "MARK"], ["Y"])],
        [("X", TensorProto.STRING, ["b", 1])],
        [("Y", TensorProto.STRING, ["b", 1])],
        [helper.make_tensor("MARK", TensorProto.STRING, [1], [b"!"])],
        opset=20,
    )
    config = """
        max_batch_size: 4
        input { name: "X" data_type: TYPE_STRING dims: [ 1 ] } output { name: "Y" data_type: TYPE_STRING dims: [ 1 ] }
    """
    engine = load_tensor_engine(onnx_model(tmp_path, "shout", config, graph), context(tmp_path))
    words = [request("shout", X=np.array([[word]], object)) for word in ("héj".encode(), b"\xff", b"ho")]
    first, wrong, last = await engine.execute(words)
    assert outputs_of(first)["Y"] == [["héj!".encode()]]
    assert outputs_of(last)["Y"] == [[b"ho!"]]
    assert isinstance(wrong, BadInput)
    assert "not UTF-8" in str(wrong)
    await engine.close()


@pytest.mark.parametrize(
    ("word", "kind", "dtype"),
    [("FP16", TensorProto.FLOAT16, np.float16), ("BF16", TensorProto.BFLOAT16, ml_dtypes.bfloat16)],
    ids=["fp16", "bf16"],
)
async def test_half_precision_comes_back_as_it_went_in(tmp_path, word, kind, dtype):
    nodes = [
        helper.make_node("Cast", ["X"], ["F"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["F", "F"], ["G"]),
        helper.make_node("Cast", ["G"], ["Y"], to=kind),
    ]
    graph = graph_of(nodes, [("X", kind, ["b", 3])], [("Y", kind, ["b", 3])])
    engine = load_tensor_engine(onnx_model(tmp_path, "half", "", graph), context(tmp_path))
    x = np.array([[1, 2, 3]], dtype)
    answers = await engine.execute([request("half", X=x), request("half", X=x * dtype(2))])
    assert [answer.outputs[0].datatype for answer in answers] == [word, word]
    assert [outputs_of(answer)["Y"] for answer in answers] == [[[2, 4, 6]], [[4, 8, 12]]]
    await engine.close()


async def test_reshape_is_between_the_client_and_the_file(tmp_path):
    config = """
        max_batch_size: 8
        input { name: "X" data_type: TYPE_FP32 dims: [ 2, 2 ] reshape { shape: [ 4 ] } }
        output { name: "Y" data_type: TYPE_FP32 dims: [ 4, 1 ] reshape { shape: [ 4 ] } }
    """
    engine = load_tensor_engine(onnx_model(tmp_path, "shaped", config, plus_one_graph()), context(tmp_path))
    (answer,) = await engine.execute([request("shaped", X=np.zeros((1, 2, 2), np.float32))])
    assert answer.outputs[0].shape == (1, 4, 1)
    await engine.close()


async def test_a_request_that_onnx_runtime_refuses_does_not_fail_its_neighbours(tmp_path):
    graph = graph_of(
        [helper.make_node("Gather", ["TABLE", "X"], ["Y"])],
        [("X", TensorProto.INT64, ["b", 1])],
        [("Y", TensorProto.FLOAT, ["b", 1])],
        [numpy_helper.from_array(np.array([5, 6], np.float32), "TABLE")],
    )
    engine = load_tensor_engine(onnx_model(tmp_path, "gather", "", graph), context(tmp_path))
    good, bad = (request("gather", X=np.array([[index]])) for index in (1, 99))
    first, wrong, last = await engine.execute([good, bad, good])
    assert outputs_of(first)["Y"] == outputs_of(last)["Y"] == [[6]]
    assert isinstance(wrong, BadInput | EngineFailed)
    assert "onnx runtime error" in str(wrong)
    await engine.close()


async def test_an_onnx_model_does_not_stream(plus_one):
    with pytest.raises(Unsupported, match="not decoupled"):
        plus_one.stream(request("plus_one", X=row(1, 1, 1, 1)))


WRONG = [
    ("name", PLUS_ONE.replace('"X"', '"Z"'), BadInput, "unexpected inference input 'Z', allowed inputs are: X"),
    ("type", PLUS_ONE.replace("FP32", "INT32", 1), BadInput, "config.pbtxt says TYPE_INT32, the file has TYPE_FP32"),
    ("shape", PLUS_ONE.replace("[ 4 ]", "[ 5 ]", 1), BadInput, r"the model expects 2 dimensions \(shape \[-1, 4\]\)"),
    ("file", PLUS_ONE + 'default_model_filename: "x.onnx"', BadInput, "unable to find 'x.onnx' in version folder '1'"),
    ("gpu", PLUS_ONE + "instance_group { kind: KIND_GPU }", MissingDependency, "KIND_GPU"),
    (
        "threads",
        PLUS_ONE + 'parameters { key: "intra_op_thread_count" value { string_value: "two" } }',
        BadInput,
        "must be a whole number",
    ),
]


@pytest.mark.parametrize(("config", "kind", "problem"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_config_that_does_not_fit_the_file_is_refused_in_tritons_words(tmp_path, config, kind, problem):
    with pytest.raises(kind, match=problem):
        load_tensor_engine(onnx_model(tmp_path, "wrong", config, plus_one_graph()), context(tmp_path))


def test_only_requests_with_the_same_tensors_and_shapes_are_joined():
    narrow, wide = np.zeros((1, 2)), np.zeros((1, 3))
    feeds = [{"X": narrow}, {"X": wide}, BadInput("no"), {"X": np.zeros((5, 2))}, {"X": narrow, "B": narrow}]
    assert alike(feeds) == [[0, 3], [1], [4]]
