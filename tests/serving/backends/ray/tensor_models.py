"""Tiny tensor models as a Ray replica finds them: python-backend ones in the folder ``models``, ONNX ones made here."""

import shutil
from pathlib import Path

import numpy as np
import onnx
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.artifacts.store import ArtifactStore
from serving.backends.base import EngineContext
from serving.protocol.oip import InferRequest, RequestedOutput, Tensor
from serving.repository.model import License, Model, ModelCard, Source

MODELS = Path(__file__).parent / "models"

PLUS_ONE = """
    backend: "onnxruntime" max_batch_size: 8
    input { name: "X" data_type: TYPE_FP32 dims: [ 4 ] }
    output { name: "Y" data_type: TYPE_FP32 dims: [ 4 ] }
"""


def card(engine: str, **more) -> ModelCard:
    return ModelCard(
        description="a tiny model",
        task="tensor",
        backend="ray",
        engine=engine,
        license=License(name="MIT", commercial_use=True),
        source=Source(uri="builtin:test"),
        **more,
    )


def onnx_model(folder: Path, name: str, config: str, graph: onnx.ModelProto) -> Model:
    version = folder / name / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(graph.SerializeToString())
    (folder / name / "config.pbtxt").write_text(config)
    parsed = text_format.Parse(config, ModelConfig(name=name))
    return Model(name, folder / name, card("onnxruntime"), parsed, (1,))


def python_model(name: str, folder: Path | None = None, source: str | None = None, config: str | None = None) -> Model:
    """One of the folder ``models``; a copy of it in ``folder``, with another model.py or config.pbtxt, where given."""
    home = MODELS / name
    if folder is not None:
        home = Path(shutil.copytree(home, folder / name, ignore=shutil.ignore_patterns("__pycache__")))
        if source is not None:
            (home / "1/model.py").write_text(source)
        if config is not None:
            (home / "config.pbtxt").write_text(config)
    parsed = text_format.Parse((home / "config.pbtxt").read_text(), ModelConfig(name=name))
    return Model(name, home, card("python"), parsed, (1,))


def context(folder: Path, ask=None) -> EngineContext:
    return EngineContext(ArtifactStore(f"file://{folder}/store", folder / "cache"), folder, ask=ask)


def graph_of(nodes, inputs, outputs, initializers=(), opset: int = 18) -> onnx.ModelProto:
    def infos(described):
        return [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in described]

    graph = helper.make_graph(nodes, "g", infos(inputs), infos(outputs), list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def plus_one_graph() -> onnx.ModelProto:
    """Y = X + 1, four wide, any batch."""
    shape = ["batch", 4]
    return graph_of(
        [helper.make_node("Add", ["X", "ONE"], ["Y"])],
        [("X", TensorProto.FLOAT, shape)],
        [("Y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.ones(1, np.float32), "ONE")],
    )


def request(model: str, outputs: tuple[str, ...] = (), parameters: dict | None = None, **arrays) -> InferRequest:
    return InferRequest(
        model,
        "1",
        "r1",
        parameters or {},
        tuple(Tensor.from_array(name, np.asarray(array)) for name, array in arrays.items()),
        tuple(RequestedOutput(name) for name in outputs),
    )


def outputs_of(response) -> dict[str, list]:
    return {tensor.name: tensor.array().tolist() for tensor in response.outputs}
