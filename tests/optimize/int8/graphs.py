"""Small ONNX files of the kinds that are quantised, with seeded weights and feeds; written by the tests of int8."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 64
FLOAT = TensorProto.FLOAT


def transformer(file: Path) -> list[dict[str, np.ndarray]]:
    """Attention of one head, then two layers of which ``outlier`` reads channels of very different ranges.

    The layer norm before ``outlier`` scales one channel by 3000, whose weights are tiny: one scale for all of its
    input leaves nothing of the other channels.
    """
    random = np.random.default_rng(1)
    weights = {name: random.standard_normal((WIDTH, WIDTH)) / 8 for name in ("wq", "wk", "wv", "wo", "w1", "w2")}
    gain = np.ones(WIDTH)
    gain[3], weights["w1"][3] = 3000, weights["w1"][3] / 3000
    weights |= {"gain": gain, "bias": np.zeros(WIDTH), "b2": random.standard_normal(WIDTH)}
    nodes = [
        helper.make_node("MatMul", ["x", "wq"], ["q"], name="query"),
        helper.make_node("MatMul", ["x", "wk"], ["k"], name="key"),
        helper.make_node("MatMul", ["x", "wv"], ["v"], name="value"),
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["scores"], name="scores"),
        helper.make_node("Softmax", ["scores"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["a"], name="mix"),
        helper.make_node("MatMul", ["a", "wo"], ["o"], name="out"),
        helper.make_node("Add", ["x", "o"], ["h"]),
        helper.make_node("LayerNormalization", ["h", "gain", "bias"], ["n"]),
        helper.make_node("MatMul", ["n", "w1"], ["m"], name="outlier"),
        helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["f"], name="last"),
        helper.make_node("Add", ["f", "b2"], ["y"]),
    ]
    shape = ["batch", "tokens", WIDTH]
    write(file, nodes, weights, [("x", FLOAT, shape)], [("y", FLOAT, shape)])
    return [{"x": random.standard_normal((1 + i % 2, 8 + 5 * i, WIDTH)).astype(np.float32)} for i in range(3)]


def convolutions(file: Path, dtype: type = np.float32) -> list[dict[str, np.ndarray]]:
    """Convolution, batch norm, Relu, convolution, mean, Gemm with a transposed weight; three nodes have no name."""
    random = np.random.default_rng(2)
    weights = {
        "k1": random.standard_normal((16, 3, 3, 3)) / 4,
        "k2": random.standard_normal((16, 16, 3, 3)) / 12,
        "scale": random.uniform(0.5, 2, 16),
        "shift": random.standard_normal(16),
        "mean": random.standard_normal(16),
        "variance": random.uniform(0.5, 2, 16),
        "w": random.standard_normal((10, 16)) / 4,
        "b": random.standard_normal(10),
    }
    nodes = [
        helper.make_node("Conv", ["x", "k1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "variance"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Conv", ["r", "k2"], ["c"], pads=[1, 1, 1, 1], name="second"),
        helper.make_node("ReduceMean", ["c", "axes"], ["m"], keepdims=0, name="pool"),
        helper.make_node("Gemm", ["m", "w", "b"], ["y"], transB=1, name="head"),
    ]
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    inputs, outputs = [("x", element, ["batch", 3, "height", 12])], [("y", element, ["batch", 10])]
    write(file, nodes, weights, inputs, outputs, dtype=dtype, integers={"axes": np.array([2, 3])})
    return [{"x": random.standard_normal((1 + i, 3, 8 + 2 * i, 12)).astype(dtype)} for i in range(3)]


def write(
    file: Path,
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    inputs: list[tuple[str, int, list[int | str]]],
    outputs: list[tuple[str, int, list[int | str]]],
    *,
    dtype: type = np.float32,
    integers: dict[str, np.ndarray] | None = None,
) -> None:
    tensors = {name: array.astype(dtype) for name, array in weights.items()} | (integers or {})
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(*entry) for entry in inputs],
        [helper.make_tensor_value_info(*entry) for entry in outputs],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), file)
