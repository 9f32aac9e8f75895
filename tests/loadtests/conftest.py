"""A tiny mesh: the protocol's real servers, answering the load tests' models without computing anything."""

import asyncio
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from loadtests.bench.inference import Addresses
from serving.backends.ray.oip_plane import OipPlane
from serving.backends.ray.oip_server import OipServer
from serving.backends.ray.served import function_models
from serving.errors import Unavailable
from serving.protocol.oip import InferRequest, InferResponse, Tensor
from serving.settings import LimitSettings

CONFIGS = {
    "log_mel": """
        name: "log_mel" backend: "ray"
        input [ { name: "AUDIO" data_type: TYPE_FP32 dims: [ -1 ] } ]
        output [ { name: "FEATURES" data_type: TYPE_FP32 dims: [ -1, 80 ] } ]
    """,
    "speech": """
        name: "speech" backend: "ray"
        input [
          { name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] },
          { name: "VOICE" data_type: TYPE_STRING dims: [ 1 ] }
        ]
        output [ { name: "AUDIO" data_type: TYPE_STRING dims: [ 1 ] } ]
    """,
}


async def answer(request: InferRequest) -> InferResponse:
    """Zero features; speech is always full."""
    if request.model_name == "speech":
        raise Unavailable("the queue is full")
    audio = request.input("AUDIO")
    assert audio is not None
    features = np.zeros((len(audio.array()) // 160, 80), np.float32)
    return InferResponse(request.model_name, outputs=(Tensor.from_array("FEATURES", features),))


@pytest.fixture(scope="session")
def tiny_mesh() -> Iterator[Addresses]:
    """Where it listens; it runs in a thread with a loop of its own."""
    configs = {name: text_format.Parse(text, ModelConfig()) for name, text in CONFIGS.items()}
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> tuple[OipServer, tuple[int, int]]:
        server = OipServer(OipPlane(function_models(answer, configs)), LimitSettings())
        return server, await server.start()

    server, (http, grpc_port) = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    yield Addresses(f"http://127.0.0.1:{http}", f"127.0.0.1:{grpc_port}")
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()
