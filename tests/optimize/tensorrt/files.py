"""Small real ONNX files, what they declare, and a node that stands for one with TensorRT; of every test of TensorRT."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from optimize.recipe import Tensor
from optimize.tensorrt.builder import NvidiaBuilder
from optimize.tensorrt.profiles import Declaration
from serving.backends.ray.parts.gpu import Gpu

from .fake import fake_tensorrt

H200 = Gpu(0, "NVIDIA H200", "9.0")
SIZES = ({"batch": 2, "length": 16}, {"batch": 1, "length": 4}, {"batch": 2, "length": 16}, {"batch": 4, "length": 64})
TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}


def graph(dtype: str, nodes: list[Any] | None = None, more: list[Any] | None = None) -> onnx.ModelProto:
    """Y = relu(X @ W), X of (batch, length, 8), W of (8, 4); other nodes make Y otherwise."""
    weights = numpy_helper.from_array(np.linspace(-1, 1, 32).reshape(8, 4).astype(dtype), "W")
    body = nodes or [helper.make_node("MatMul", ["X", "W"], ["H"], "m"), helper.make_node("Relu", ["H"], ["Y"], "r")]
    made = helper.make_graph(
        body,
        "g",
        [helper.make_tensor_value_info("X", TYPES[dtype], ["batch", "length", 8])],
        [helper.make_tensor_value_info("Y", TYPES[dtype], ["batch", "length", 4])],
        [weights, *(more or [])],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def quantised(zero: Any) -> onnx.ModelProto:
    """The same with Q/DQ nodes around X; ``zero`` is their zero point."""
    nodes = [
        helper.make_node("QuantizeLinear", ["X", "scale", "zero"], ["Q"]),
        helper.make_node("DequantizeLinear", ["Q", "scale", "zero"], ["D"]),
        helper.make_node("MatMul", ["D", "W"], ["Y"], "m"),
    ]
    scale = numpy_helper.from_array(np.float32(0.1), "scale")
    return graph("float32", nodes, [scale, numpy_helper.from_array(np.asarray(zero), "zero")])


@pytest.fixture
def onnx_file(tmp_path: Path) -> Callable[..., Path]:
    """``onnx_file("float16")``, or of a model: ``<repository>/m_unet/1/model.onnx``."""

    def write(model: str | onnx.ModelProto = "float32", part: str = "m_unet") -> Path:
        file = tmp_path / part / "1" / "model.onnx"
        file.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(graph(model) if isinstance(model, str) else model, file)
        return file

    return write


def declared(dtype: str = "float32", **changes: Any) -> Declaration:
    inputs = [Tensor("X", dtype, ("batch", "length", 8))]
    outputs = [Tensor("Y", dtype, ("batch", "length", 4))]
    return Declaration(inputs, outputs, SIZES)._replace(**changes)


class Standing:
    """A node with a GPU and a TensorRT that stands for NVIDIA's; counts what is built there."""

    def __init__(self, version: str = "10.13.0.35", gpu: Gpu = H200) -> None:
        self.module = fake_tensorrt(version)
        self.gpu = gpu

    def __call__(self) -> NvidiaBuilder:
        return NvidiaBuilder(self.gpu, self.module)

    @property
    def calls(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.module.calls
        return found


@pytest.fixture
def node() -> Standing:
    return Standing()
