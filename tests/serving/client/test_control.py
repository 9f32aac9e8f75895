import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

from serving.client import Mesh
from serving.errors import BadInput, EngineFailed, NotFound, ReelmeshError, Unavailable
from serving.protocol.oip import TensorSpec
from tests.serving.client.conftest import TOKEN, Scripted

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_server_and_its_models_are_described(triton: str) -> None:
    async with Mesh(triton, metadata=TOKEN) as mesh:
        assert await mesh.live()
        assert await mesh.ready("echo")
        assert not await mesh.ready("nothing")
        assert (await mesh.server()).name == "triton"
        described = await mesh.metadata("echo")
        assert described.versions == ("1",)
        assert described.inputs == (TensorSpec("X", "FP32", (-1,)),)
        assert (await mesh.config("count")).model_transaction_policy.decoupled
        with pytest.raises((BadInput, NotFound), match="nothing"):
            await mesh.metadata("nothing")


async def test_a_model_is_unloaded_and_loaded(triton: str) -> None:
    async with Mesh(triton, metadata=TOKEN) as mesh:
        await mesh.unload("strings")
        assert not await mesh.ready("strings")
        await mesh.load("strings")
        states = {entry.name: entry.state for entry in await mesh.index(ready=True)}
        assert states["strings"] == "READY"


async def test_a_model_is_loaded_from_the_callers_own_files(triton: str) -> None:
    code = b"""
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([pb_utils.get_input_tensor_by_name(r, "X")]) for r in requests]
"""
    config = {
        "backend": "python",
        "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [-1]}],
        "output": [{"name": "X", "data_type": "TYPE_FP32", "dims": [-1]}],
    }
    async with Mesh(triton, metadata=TOKEN) as mesh:
        await mesh.load("carried", config=config, files={"1/model.py": code})
        assert await mesh.ready("carried")
        await mesh.unload("carried")


async def test_control_without_its_header_is_refused(triton: str) -> None:
    async with Mesh(triton) as mesh:
        with pytest.raises(ReelmeshError, match="restricted"):
            await mesh.unload("echo")


async def test_a_server_that_is_not_there_is_not_live(free_port: int) -> None:
    async with Mesh(f"127.0.0.1:{free_port}") as mesh:
        assert not await mesh.live()
        assert not await mesh.ready()
        with pytest.raises(Unavailable, match=f"no server answers at 127.0.0.1:{free_port}"):
            await mesh.server()


@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.parametrize("ready", [True, False])
async def test_whether_all_is_ready_is_the_servers_word(scripted: tuple[str, Scripted], ready: bool) -> None:
    async def told(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return pb.ServerReadyResponse(ready=ready).SerializeToString()

    address, server = scripted
    server.answers = {"ServerReady": told}
    async with Mesh(address) as mesh:
        assert await mesh.ready() is ready


@pytest.mark.asyncio(loop_scope="function")
async def test_a_broken_answer_is_told_as_such(scripted: tuple[str, Scripted]) -> None:
    async def broken(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return b"\xff\xff"

    address, server = scripted
    server.answers = {"ServerMetadata": broken}
    async with Mesh(address) as mesh:
        with pytest.raises(EngineFailed, match="answer to ServerMetadata is broken"):
            await mesh.server()
