from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from optimize.recipe import Tensor
from optimize.tensorrt.contents import Contents, look
from serving.errors import BadInput, NotFound

from .files import declared, graph, quantised


@pytest.mark.parametrize(
    ("model", "dtype", "expected"),
    [
        pytest.param(graph("float32"), "float32", ({"fp32"}, set()), id="float"),
        pytest.param(graph("float16"), "float16", ({"fp16"}, set()), id="half"),
        pytest.param(quantised(np.int8(0)), "float32", ({"fp32"}, {"int8"}), id="int8"),
        pytest.param(quantised(np.uint8(128)), "float32", ({"fp32"}, {"asymmetric"}), id="unsigned"),
        pytest.param(quantised(np.int8(3)), "float32", ({"fp32"}, {"asymmetric"}), id="shifted"),
        pytest.param(quantised(ml_dtypes.float8_e4m3fn(0)), "float32", ({"fp32"}, {"fp8"}), id="fp8"),
    ],
)
def test_types_of_weights_and_of_quantising_nodes_are_found(
    onnx_file: Callable[..., Path], model: onnx.ModelProto, dtype: str, expected: tuple[set[str], set[str]]
) -> None:
    assert look(onnx_file(model), declared(dtype)) == Contents(*map(frozenset, expected))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param(
            {"inputs": [Tensor("Z", "float32", (1,))]}, "inputs differ from the declared ones: X, Z", id="names"
        ),
        pytest.param(
            {"outputs": [Tensor("Y", "int64", ("batch", "length", 4))]}, "Y is FLOAT .* declared as INT64", id="type"
        ),
        pytest.param({"inputs": [Tensor("X", "float32", ("batch", 8))]}, "input X is FLOAT", id="axes"),
        pytest.param({"inputs": [Tensor("X", "float32", (2, "length", 8))]}, "input X is FLOAT", id="fixed"),
    ],
)
def test_a_file_with_other_tensors_is_refused(
    onnx_file: Callable[..., Path], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        look(onnx_file(), declared(**changes))


def test_an_operator_that_tensorrt_does_not_know_is_named_with_its_node(onnx_file: Callable[..., Path]) -> None:
    node = helper.make_node("MatMulNBits", ["X", "W"], ["Y"], "blocks.3.attention", domain="com.microsoft")
    model = graph("float32", [node])
    with pytest.raises(BadInput, match=r"node 'blocks.3.attention' is a com.microsoft.MatMulNBits"):
        look(onnx_file(model), declared())


def test_dynamic_quantisation_is_refused(onnx_file: Callable[..., Path]) -> None:
    node = helper.make_node("DynamicQuantizeLinear", ["X"], ["Q", "s", "z"], "q")
    with pytest.raises(BadInput, match="is a DynamicQuantizeLinear, which TensorRT does not know"):
        look(onnx_file(graph("float32", [node])), declared())


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no ONNX file: publish the part again"):
        look(tmp_path / "model.onnx", declared())


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\xff" * 64)
    with pytest.raises(BadInput, match="is no ONNX file"):
        look(tmp_path / "model.onnx", declared())


def test_a_file_over_2_gb_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    with file.open("wb") as stream:
        stream.truncate(2 << 30)
    with pytest.raises(BadInput, match=r"over 2 GB in one file.*external data"):
        look(file, declared())


def test_missing_external_weights_are_named(onnx_file: Callable[..., Path]) -> None:
    model = graph("float32")
    onnx.external_data_helper.convert_model_to_external_data(model, location="model.onnx.data", size_threshold=0)
    file = onnx_file(model)
    assert look(file, declared()).floats == {"fp32"}
    file.with_name("model.onnx.data").unlink()
    with pytest.raises(BadInput, match=r"its weights 'model.onnx.data' are missing"):
        look(file, declared())


def test_a_file_without_matrices_goes_by_its_other_numbers(onnx_file: Callable[..., Path]) -> None:
    scale = helper.make_tensor("scale", TensorProto.FLOAT, [], [0.5])
    nodes = [
        helper.make_node("Mul", ["X", "scale"], ["S"]),
        helper.make_node("Slice", ["S", "start", "end", "axis"], ["Y"]),
    ]
    places = [helper.make_tensor(n, TensorProto.INT64, [1], [v]) for n, v in (("start", 0), ("end", 4), ("axis", 2))]
    model = graph("float32", nodes, [scale, *places])
    del model.graph.initializer[0]
    assert look(onnx_file(model), declared()).floats == {"fp32"}
