"""A whole small mesh without Ray: an edge, a gateway, and replicas that can be killed."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc.aio as triton_grpc
import tritonclient.http.aio as triton_http
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from serving.backends.http_server import HttpServer
from serving.backends.ray.oip_plane import OipPlane
from serving.backends.ray.oip_server import OipServer, grpc_options
from serving.backends.ray.served import function_models
from serving.edge.deployment import EdgeDeployment
from serving.gateway.oip_grpc import oip_handler
from serving.gateway.oip_grpc_channels import Channels
from serving.gateway.oip_http import oip_router
from serving.gateway.oip_parts import mesh_plane
from serving.protocol.endpoint import Endpoint, Heartbeat
from serving.settings import Settings
from serving.telemetry import exposition
from tests.serving.edge.replica import echo_config, echoing

HOST = "127.0.0.1"
REPLICA = Path(__file__).with_name("replica.py")
LIBRARY_PATH = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}


def heartbeat(replica_id, model, ports):
    http, rpc = (f"{HOST}:{port}" for port in ports)
    return Heartbeat(replica_id=replica_id, endpoints=[Endpoint(model=model, http=http, grpc=rpc)])


async def until(holds, within_s=10.0):
    """Wait until something holds, and fail when it does not in time."""
    deadline = asyncio.get_running_loop().time() + within_s
    while not holds():
        assert asyncio.get_running_loop().time() < deadline, "it did not come to hold in time"
        await asyncio.sleep(0.02)


class Edge(EdgeDeployment):
    """The deployment without Serve, which awaits constructors."""

    @classmethod
    async def start(cls, settings):
        edge = cls.__new__(cls)
        await edge.__init__(settings)
        return edge


class NearEdge:
    """What the gateway's EdgeClient tells, without Ray in between."""

    def __init__(self, edge):
        self._edge = edge

    async def replicas(self, *, fresh=False):
        return await self._edge.replicas()


class Gateway:
    """What the real gateway mounts, on ports of its own."""

    def __init__(self, edge, limits, expected=()):
        app = FastAPI()
        self.calls = 0
        self._plane = mesh_plane(NearEdge(edge), Settings(limits=limits), HOST, list(expected), list(expected))
        self._channels = Channels(self._plane.mesh, limits)
        app.include_router(oip_router(self._plane))
        app.get("/metrics", response_class=PlainTextResponse)(exposition)
        app.post("/v1/jobs")(lambda: "made")

        @app.middleware("http")
        async def count(request, call_next):
            self.calls += 1
            return await call_next(request)

        self._server = HttpServer(app, HOST, drain_s=1)
        self._grpc = grpc.aio.server(options=grpc_options(limits.infer_bytes))
        self._grpc.add_generic_rpc_handlers((oip_handler(self._plane, self._channels),))

    async def start(self):
        await self._server.start()
        rpc = self._grpc.add_insecure_port(f"{HOST}:0")
        await self._grpc.start()
        return self._server.port, rpc

    async def stop(self):
        await asyncio.gather(self._server.stop(), self._grpc.stop(1))
        await self._channels.close()
        await self._plane.close()


class Child:
    """A replica in a process of its own."""

    @classmethod
    async def start(cls, tag):
        self = cls()
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(REPLICA),
            tag,
            stdout=asyncio.subprocess.PIPE,
            env=LIBRARY_PATH,
        )
        line = await asyncio.wait_for(self.process.stdout.readline(), 20)
        self.ports = tuple(map(int, line.split()))
        return self

    async def kill(self):
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


class Mesh:
    """The edge with helpers that speak to it as a client would."""

    def __init__(self, edge, ports):
        self.edge = edge
        self.ports = ports
        self.http = f"{HOST}:{ports.http}"
        self.grpc = f"{HOST}:{ports.grpc}"

    @contextlib.asynccontextmanager
    async def clients(self):
        async with (
            triton_http.InferenceServerClient(self.http) as http,
            triton_grpc.InferenceServerClient(self.grpc) as rpc,
        ):
            yield (http, triton_http), (rpc, triton_grpc)


def inputs(kind, values=(1.0, 2.5)):
    array = np.asarray(values, np.float32)
    tensor = kind.InferInput("X", array.shape, "FP32")
    tensor.set_data_from_numpy(array)
    return [tensor]


@pytest.fixture
async def mesh(settings):
    # These replicas have no heart: one heartbeat must last the whole test.
    lasting = settings.edge.model_copy(update={"endpoint_ttl_s": 300.0})
    edge = await Edge.start(settings.model_copy(update={"edge": lasting}))
    yield Mesh(edge, await edge.ports())
    await edge.close()


@pytest.fixture
async def gateway(mesh, settings):
    gateway = Gateway(mesh.edge, settings.limits, expected=["echo", "absent"])
    await mesh.edge.heartbeat(heartbeat("gateway", "*", await gateway.start()))
    yield gateway
    await gateway.stop()


@pytest.fixture
async def replica(mesh, settings):
    server = OipServer(OipPlane(function_models(echoing("one"), {"echo": echo_config()})), settings.limits)
    await mesh.edge.heartbeat(heartbeat("one", "echo", await server.start()))
    yield server
    await server.stop()
