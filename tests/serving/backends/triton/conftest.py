"""A real tritonserver with tiny models, shared by all tests of this folder."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import pytest_asyncio
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.backends.triton.install import TritonInstall, default_folder, find_tritonserver, install
from serving.backends.triton.server import TritonServer
from serving.repository.model import License, Model, ModelCard, Source
from serving.settings import Settings

CARD = {
    "description": "a tiny model",
    "task": "tensor",
    "backend": "triton",
    "engine": "onnxruntime",
    "license": License(name="MIT", commercial_use=True),
    "source": Source(uri="builtin:test"),
}

PLUS_ONE = """
    backend: "onnxruntime" max_batch_size: 8
    input { name: "X" data_type: TYPE_FP32 dims: [ 4 ] }
    output { name: "Y" data_type: TYPE_FP32 dims: [ 4 ] }
    dynamic_batching { max_queue_delay_microseconds: 20000 }
"""
OPTIONAL = """
    backend: "onnxruntime"
    input { name: "X" data_type: TYPE_FP32 dims: [ -1 ] }
    input { name: "B" data_type: TYPE_FP32 dims: [ 1 ] optional: true }
    output { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] }
"""
STRINGS = """
    backend: "onnxruntime"
    input { name: "X" data_type: TYPE_STRING dims: [ -1 ] }
    output { name: "Y" data_type: TYPE_STRING dims: [ -1 ] }
"""


def add_graph(size: int | str, batch: str | None = "batch") -> onnx.ModelProto:
    """Y = X + B, where B is 1 unless given."""
    shape = [batch, size] if batch else [size]
    graph = helper.make_graph(
        [helper.make_node("Add", ["X", "B"], ["Y"])],
        "add",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, shape)]
        + ([] if batch else [helper.make_tensor_value_info("B", TensorProto.FLOAT, [1])]),
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.ones(1, np.float32), "B")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def shout_graph() -> onnx.ModelProto:
    """Y = X with an exclamation mark."""
    graph = helper.make_graph(
        [helper.make_node("StringConcat", ["X", "MARK"], ["Y"])],
        "shout",
        [helper.make_tensor_value_info("X", TensorProto.STRING, ["n"])],
        [helper.make_tensor_value_info("Y", TensorProto.STRING, ["n"])],
        [helper.make_tensor("MARK", TensorProto.STRING, [1], [b"!"])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


MakeModel = Callable[..., Model]


def write_model(folder: Path, name: str, config: str, graph: onnx.ModelProto | bytes, **card: object) -> Model:
    version = folder / name / "1"
    version.mkdir(parents=True)
    data = graph if isinstance(graph, bytes) else graph.SerializeToString()
    (version / "model.onnx").write_bytes(data)
    (folder / name / "config.pbtxt").write_text(config)
    parsed = text_format.Parse(config, ModelConfig())
    return Model(name, folder / name, ModelCard.model_validate(CARD | card), parsed, (1,))


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """``make_model(name, config, graph, **card)``: a model folder of this test's own."""
    return lambda *args, **card: write_model(tmp_path / "models", *args, **card)


@pytest.fixture(scope="session")
def triton() -> TritonInstall:
    """The tritonserver of this machine, unpacked from its wheel where there is none."""
    install(default_folder())
    return find_tritonserver(Settings())


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Model]:
    folder = tmp_path_factory.mktemp("models")
    return [
        write_model(folder, "plus_one", PLUS_ONE, add_graph(4)),
        write_model(folder, "optional", OPTIONAL, add_graph("n", batch=None)),
        write_model(folder, "strings", STRINGS, shout_graph()),
        write_model(folder, "bare", 'backend: "onnxruntime"', add_graph(4)),
    ]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(
    triton: TritonInstall, models: list[Model], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[TritonServer]:
    """A running server; tests that hurt it start their own."""
    current = os.environ.pop("PYTEST_CURRENT_TEST", None)  # it outlives the first test, so it is not that test's
    shared = TritonServer(triton, models, tmp_path_factory.mktemp("home"))
    await shared.start()
    if current is not None:
        os.environ["PYTEST_CURRENT_TEST"] = current
    yield shared
    await shared.stop()


Make = Callable[[str, int], str]


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Make]:
    """``shared(name, size)``: a region of shared memory of this test's own, by key."""
    made: list[Path] = []

    def make(name: str, size: int) -> str:
        place = Path("/dev/shm") / f"{tmp_path.name}_{name}"
        place.write_bytes(bytes(size))
        made.append(place)
        return f"/{place.name}"

    yield make
    for place in made:
        place.unlink(missing_ok=True)
