"""A real tritonserver with three tiny models, and a real gRPC server that answers as a test says."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.backends.triton.client import TRITON_TOKEN_HEADER
from serving.backends.triton.install import default_folder, find_tritonserver, install
from serving.backends.triton.server import TritonServer
from serving.protocol.oip_grpc import SERVICE
from serving.repository.model import License, Model, ModelCard, Source
from serving.settings import Settings

TENSORS = """
    input { name: "X" data_type: TYPE_FP32 dims: [ -1 ] }
    output { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] }
"""
ECHO = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            array = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            if array[0] < 0:
                time.sleep(-float(array[0]))
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", array)]))
        return answers
"""
COUNT = """
import time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            for number in range(int(pb_utils.get_input_tensor_by_name(request, "X").as_numpy()[0])):
                if sender.is_cancelled():
                    break
                tensor = pb_utils.Tensor("Y", np.array([number], np.float32))
                sender.send(pb_utils.InferenceResponse([tensor]))
                time.sleep(0.01)
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
STRINGS = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        arrays = [pb_utils.get_input_tensor_by_name(request, "X").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", array)]) for array in arrays]
"""
MODELS = {
    "echo": (ECHO, TENSORS),
    "count": (COUNT, TENSORS + "model_transaction_policy { decoupled: true }"),
    "strings": (STRINGS, TENSORS.replace("FP32", "STRING")),
}
TOKEN = {f"triton-grpc-protocol-{TRITON_TOKEN_HEADER}": "opens"}
CARD = ModelCard(
    description="a tiny model",
    task="tensor",
    backend="triton",
    engine="python",
    license=License(name="MIT", commercial_use=True),
    source=Source(uri="builtin:test"),
)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def triton(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The gRPC address of a tritonserver whose control wants the header of :data:`TOKEN`."""
    install(default_folder())
    home = tmp_path_factory.mktemp("client-home")
    models = [write_model(home / "models", name, *parts) for name, parts in MODELS.items()]
    current = os.environ.pop("PYTEST_CURRENT_TEST", None)  # it outlives the first test, so it is not that test's
    server = TritonServer(find_tritonserver(Settings()), models, home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secrets.token_hex", lambda size: "opens")
        await server.start()
    assert server.ports is not None
    if current is not None:
        os.environ["PYTEST_CURRENT_TEST"] = current
    yield f"127.0.0.1:{server.ports.grpc}"
    await server.stop(drain_s=1)


def write_model(folder: Path, name: str, code: str, config: str) -> Model:
    config = f'name: "{name}" backend: "python" {config}'
    (folder / name / "1").mkdir(parents=True)
    (folder / name / "1" / "model.py").write_text(code)
    (folder / name / "config.pbtxt").write_text(config)
    return Model(name, folder / name, CARD, text_format.Parse(config, ModelConfig()), (1,))


Answer = Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]


class Scripted(grpc.GenericRpcHandler):
    """Answers any unary call of the service by the method's name; notes what was called."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.calls: list[str] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        name = details.method.removeprefix(f"/{SERVICE}/")
        self.calls.append(name)
        answer = self.answers.get(name)
        return grpc.unary_unary_rpc_method_handler(answer) if answer else None


@pytest_asyncio.fixture
async def scripted() -> AsyncIterator[tuple[str, Scripted]]:
    """The address of a server, and what it says."""
    handler = Scripted()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}", handler
    await server.stop(None)
