"""A mesh that asks for keys, in front of servers that answer everything with the headers they got."""

import asyncio
import contextlib
import hashlib

import grpc
import httpx

from serving.backends.http_server import HttpServer
from serving.edge.key_file import Key, add_key
from serving.protocol.endpoint import Endpoint, Heartbeat
from serving.protocol.keys import GRANT_HEADER, KEY_HEADER, Grant
from serving.protocol.licences import USE_HEADER
from tests.serving.edge.conftest import HOST, Edge

SHOWN = (KEY_HEADER, GRANT_HEADER, USE_HEADER, "authorization")


async def _app(scope, receive, send):
    told = {name.decode(): value.decode() for name, value in scope["headers"]}
    headers = [(f"got-{name}".encode(), told[name].encode()) for name in SHOWN if name in told]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


class _Anything(grpc.GenericRpcHandler):
    def service(self, details):
        async def answer(_data, context):
            told = [(f"got-{name}", value) for name, value in context.invocation_metadata() if name in SHOWN]
            await context.send_initial_metadata(told)
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


class Mirror:
    """An HTTP and a gRPC server that answer every call."""

    async def start(self, replica_id, model):
        self._http = HttpServer(_app, HOST)
        await self._http.start()
        self._grpc = grpc.aio.server()
        self._grpc.add_generic_rpc_handlers((_Anything(),))
        rpc = self._grpc.add_insecure_port(f"{HOST}:0")
        await self._grpc.start()
        endpoint = Endpoint(model=model, http=f"{HOST}:{self._http.port}", grpc=f"{HOST}:{rpc}")
        return Heartbeat(replica_id=replica_id, endpoints=[endpoint])

    async def stop(self):
        await asyncio.gather(self._http.stop(), self._grpc.stop(1))


class Guarded:
    """An edge with a key file, a gateway and a replica of the model ``echo``."""

    def __init__(self, settings, file):
        lasting = settings.edge.model_copy(update={"endpoint_ttl_s": 300.0, "keys_file": file})
        self.settings = settings.model_copy(update={"edge": lasting})
        self.file = file

    def add(self, name, calls="infer", models=("*",), rate=None):
        """Write a key into the file; returns it."""
        key = f"key-of-{name}"
        add_key(self.file, Key(hashlib.sha256(key.encode()).hexdigest(), Grant(name, calls, tuple(models)), rate))
        return key

    @contextlib.asynccontextmanager
    async def running(self):
        self.edge = await Edge.start(self.settings)
        self.ports = await self.edge.ports()
        mirrors = Mirror(), Mirror()
        try:
            for mirror, (name, model) in zip(mirrors, (("gateway", "*"), ("one", "echo")), strict=True):
                await self.edge.heartbeat(await mirror.start(name, model))
            async with httpx.AsyncClient(base_url=f"http://{HOST}:{self.ports.http}") as self.http:
                yield self
        finally:
            await asyncio.gather(self.edge.close(), *(mirror.stop() for mirror in mirrors))

    async def get(self, path, key=None, **headers):
        bearer = {} if key is None else {"authorization": f"Bearer {key}"}
        return await self.http.get(path, headers=bearer | headers)

    async def post(self, path, key=None, **headers):
        bearer = {} if key is None else {"authorization": f"Bearer {key}"}
        return await self.http.post(path, content=b"{}", headers=bearer | headers)

    async def call(self, method, key=None, message=b"", service="inference.GRPCInferenceService", **metadata):
        """Status, details and the headers that came back of a gRPC call."""
        told = list(metadata.items()) + ([] if key is None else [("authorization", f"Bearer {key}")])
        async with grpc.aio.insecure_channel(f"{HOST}:{self.ports.grpc}") as channel:
            call = channel.unary_unary(f"/{service}/{method}")(message, metadata=told, timeout=5)
            code, details, got = await call.code(), await call.details(), await call.initial_metadata()
        return code, details, dict(got)
