"""The models that the benchmark compares servers with, written as a Triton repository; used by loadtests.bench.

The one invariant: the copy for a Ray replica is the same folder with one other line, ``backend: "ray"``.
"""

import os
import time
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from loadtests.payloads import Payload
from serving.protocol.oip import Tensor

WIDTH: Final = 256
CHANNELS: Final = 32
PICTURE_PX: Final = 64
CONV_MS: Final = 20.0
TRIAL_LAYERS: Final = 6
LARGE_BYTES: Final = 64 << 20
ON_RAY: Final = "_on_ray"
"""Behind the name of the copy that a Ray replica serves."""

CONFIG: Final = """backend: "{backend}"
max_batch_size: {batch}
input [ {{ name: "X" data_type: TYPE_FP32 dims: [ {dims} ] }} ]
output [ {{ name: "Y" data_type: TYPE_FP32 dims: [ {out} ] }} ]
instance_group [ {{ count: {instances} kind: KIND_CPU }} ]
dynamic_batching {{ max_queue_delay_microseconds: 0 }}
"""
IDENTITY_CONFIG: Final = """backend: "python"
input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] } ]
"""
IDENTITY: Final = '''"""Y is X."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Hands its input on."""

    def execute(self, requests):
        """Answer each request."""
        arrays = [pb_utils.get_input_tensor_by_name(request, "X").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", array)]) for array in arrays]
'''


class Model(NamedTuple):
    """One of the models: how it is asked, and its file."""

    payload: Payload
    file: Path

    @property
    def name(self) -> str:
        """Its name at Triton."""
        return self.payload.model

    def on_ray(self) -> Payload:
        """The same request for the copy on a Ray replica."""
        return self.payload._replace(model=self.name + ON_RAY)

    def session(self) -> ort.InferenceSession:
        """ONNX Runtime as the mesh runs it: one thread."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        return ort.InferenceSession(self.file, options, providers=["CPUExecutionProvider"])


def write_repository(folder: Path) -> list[Model]:
    """Write all models; those that are compared are returned, ``identity`` is for large tensors."""
    cores = os.cpu_count() or 1
    random = np.random.default_rng(0)
    vector = random.standard_normal((1, WIDTH)).astype(np.float32)
    picture = random.standard_normal((1, 3, PICTURE_PX, PICTURE_PX)).astype(np.float32)
    version = folder / "identity" / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(IDENTITY, encoding="utf-8")
    (folder / "identity" / "config.pbtxt").write_text(IDENTITY_CONFIG, encoding="utf-8")
    return [
        _write(folder, "mlp", mlp(), vector, out=f"{WIDTH}", batch=64, instances=1),
        # Joining saves such a model nothing: a batch of 64 would only make its first request wait for all of them.
        _write(
            folder,
            "conv",
            conv(layers_for(CONV_MS)),
            picture,
            out=f"{CHANNELS}, 1, 1",
            batch=4,
            instances=min(cores, 2),
        ),
    ]


def _write(folder: Path, name: str, model: onnx.ModelProto, array: np.ndarray[Any, Any], **config: str | int) -> Model:
    dims = ", ".join(map(str, array.shape[1:]))
    data = model.SerializeToString()
    for copy, backend in ((name, "onnxruntime"), (name + ON_RAY, "ray")):
        version = folder / copy / "1"
        version.mkdir(parents=True)
        (version / "model.onnx").write_bytes(data)
        text = CONFIG.format(backend=backend, dims=dims, **config)
        (folder / copy / "config.pbtxt").write_text(text, encoding="utf-8")
    return Model(Payload(name, (Tensor.from_array("X", array),), "Y"), folder / name / "1" / "model.onnx")


def mlp() -> onnx.ModelProto:
    """Two layers of 256 by 256, float32."""
    random = np.random.default_rng(1)
    weights = [
        numpy_helper.from_array((random.standard_normal((WIDTH, WIDTH)) / 16).astype(np.float32), name)
        for name in ("A", "B")
    ]
    nodes = [
        helper.make_node("MatMul", ["X", "A"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["bent"]),
        helper.make_node("MatMul", ["bent", "B"], ["Y"]),
    ]
    return _model("mlp", nodes, weights, ["batch", WIDTH], ["batch", WIDTH])


def conv(layers: int) -> onnx.ModelProto:
    """Some 3x3 convolutions of 32 channels over a picture of 64x64."""
    random = np.random.default_rng(2)
    nodes, weights, last, channels = [], [], "X", 3
    for layer in range(layers):
        kernel = random.standard_normal((CHANNELS, channels, 3, 3)) * np.sqrt(2 / (9 * channels))
        weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"w{layer}"))
        nodes.append(helper.make_node("Conv", [last, f"w{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        last, channels = f"r{layer}", CHANNELS
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["Y"]))
    return _model("conv", nodes, weights, ["batch", 3, PICTURE_PX, PICTURE_PX], ["batch", CHANNELS, 1, 1])


def layers_for(milliseconds: float) -> int:
    """How many layers take that long on one core of this machine."""
    session = ort.InferenceSession(conv(TRIAL_LAYERS).SerializeToString(), _one_thread())
    picture = np.zeros((1, 3, PICTURE_PX, PICTURE_PX), np.float32)
    times = []
    for _ in range(10):
        started = time.perf_counter()
        session.run(None, {"X": picture})
        times.append(time.perf_counter() - started)
    return max(1, round(TRIAL_LAYERS * milliseconds / 1000 / median(times)))


def _one_thread() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return options


def _model(name: str, nodes: list[Any], weights: list[Any], shape: list[Any], out: list[Any]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, name,
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, out)],
        weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
