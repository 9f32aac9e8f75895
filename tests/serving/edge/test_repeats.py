"""What the edge asks another server once more when one dies without an answer, and what it does not."""

import asyncio

import grpc
import httpx
import pytest

from serving.protocol.endpoint import Endpoint, Heartbeat
from tests.serving.edge.conftest import HOST


class Dying:
    """Takes a request, maybe does what it asks for, and ends without an answer."""

    def __init__(self):
        self.taken = 0

    async def start(self):
        self._server = await asyncio.start_server(self._take, HOST, 0)
        return self._server.sockets[0].getsockname()[1]

    async def _take(self, reader, writer):
        # HAProxy's checks connect and say nothing.
        self.taken += bool(await reader.read(65536))
        writer.close()

    async def stop(self):
        self._server.close()
        await self._server.wait_closed()


@pytest.fixture
async def dying(mesh):
    servers = {"*": Dying(), "echo": Dying()}
    for model, server in servers.items():
        address = f"{HOST}:{await server.start()}"
        endpoint = Endpoint(model=model, http=address, grpc=address)
        await mesh.edge.heartbeat(Heartbeat(replica_id=model, endpoints=[endpoint]))
    yield servers
    await asyncio.gather(*(server.stop() for server in servers.values()))


HTTP = {
    "job": ("POST", "/v1/jobs", "*", 1),
    "load": ("POST", "/v2/repository/models/echo/load", "*", 1),
    "inference-through-the-gateway": ("POST", "/v2/models/other/infer", "*", 1),
    "index": ("POST", "/v2/repository/index", "*", 3),
    "metadata": ("GET", "/v2/models/echo", "*", 3),
    "inference": ("POST", "/v2/models/echo/infer", "echo", 3),
}


@pytest.mark.parametrize("name", HTTP)
async def test_what_may_have_been_done_by_a_gateway_that_died_is_not_asked_again(mesh, dying, name):
    method, path, who, times = HTTP[name]
    async with httpx.AsyncClient() as client:
        answer = await client.request(method, f"http://{mesh.http}{path}", content=b"{}")
    assert answer.status_code in (502, 503)
    assert dying[who].taken == times


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "ModelInfer", "ServerReady"])
async def test_over_grpc_nothing_is_asked_again(mesh, dying, method):
    async with grpc.aio.insecure_channel(mesh.grpc) as channel:
        call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert dying["*"].taken == 1
