"""The gateway's OIP on real ports, over small real replicas and an edge in memory; for tests of the OIP's parts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc
import httpx
from fastapi import FastAPI
from tritonclient.grpc import service_pb2_grpc

from serving.backends.http_server import HttpServer
from serving.backends.ray.oip_server import grpc_options
from serving.edge.memory import ControlMemory
from serving.gateway.oip_grpc import oip_handler
from serving.gateway.oip_grpc_channels import Channels
from serving.gateway.oip_health import add_health
from serving.gateway.oip_http import oip_router
from serving.gateway.oip_parts import MeshPlane, mesh_plane
from serving.protocol.endpoint import Heartbeat
from serving.settings import InferenceSettings, LimitSettings, Settings
from tests.serving.gateway.replica import Replica


class MemoryEdge:
    """What an EdgeClient tells, without Ray."""

    def __init__(self):
        self.beats: dict[str, Heartbeat] = {}
        self.memory = ControlMemory(most_calls=20, most_bytes=100_000)

    async def replicas(self, *, fresh=False):
        return [self.beats[name] for name in sorted(self.beats)]

    async def remember(self, call):
        self.memory = self.memory.remember(call)

    async def forget(self, key):
        self.memory = self.memory.forget(key)

    async def recall(self, key):
        return self.memory.recall(key)


@dataclass
class OipSite:
    edge: MemoryEdge
    plane: MeshPlane
    replicas: list[Replica]
    http: httpx.AsyncClient
    channel: grpc.aio.Channel
    stub: service_pb2_grpc.GRPCInferenceServiceStub
    address: str

    @property
    def controls(self):
        return [replica.control for replica in self.replicas]


@asynccontextmanager
async def open_oip(names=("one", "two"), mode="explicit", requested=("echo",), **limits) -> AsyncIterator[OipSite]:
    edge = MemoryEdge()
    settings = Settings(
        inference=InferenceSettings(model_control_mode=mode),
        limits=LimitSettings(**{"infer_bytes": 1 << 20, "infer_json_bytes": 1 << 19, **limits}),
    )
    async with AsyncExitStack() as opened:
        replicas = [await Replica(edge, name).start() for name in names]
        opened.push_async_callback(_stop, replicas)
        plane = mesh_plane(edge, settings, "127.0.0.1", requested, ["echo", "extra"])
        opened.push_async_callback(plane.close)
        app = FastAPI()
        app.include_router(oip_router(plane))
        http = HttpServer(app, drain_s=1)
        opened.push_async_callback(http.stop)
        await http.start()
        address = await _serve_grpc(opened, plane)
        client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{http.port}", timeout=20, trust_env=False)
        await opened.enter_async_context(client)
        channel = await opened.enter_async_context(grpc.aio.insecure_channel(address))
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        yield OipSite(edge, plane, replicas, client, channel, stub, address)


async def _stop(replicas):
    await asyncio.gather(*(replica.stop() for replica in replicas))


async def _serve_grpc(opened, plane):
    channels = Channels(plane.mesh, plane.limits)
    opened.push_async_callback(channels.close)
    server = grpc.aio.server(options=grpc_options(plane.limits.infer_bytes))
    server.add_generic_rpc_handlers((oip_handler(plane, channels),))
    add_health(server, plane.mesh)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    opened.push_async_callback(server.stop, None)
    return f"127.0.0.1:{port}"
