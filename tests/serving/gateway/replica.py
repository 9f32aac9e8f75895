"""A small real replica: OIP's data plane by HTTP and gRPC, and a real control port over models in memory."""

import asyncio
import struct

import grpc
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from tritonclient.grpc import service_pb2 as pb

from serving.backends.control import ControlServer
from serving.backends.http_server import HttpServer
from serving.errors import BadInput, EngineFailed, NotFound, Unsupported
from serving.protocol.control import ModelState
from serving.protocol.endpoint import Endpoint, Heartbeat
from serving.protocol.licences import USE_HEADER
from serving.protocol.oip_grpc import SERVICE


def request(model, name="", x=1.0, **parameters):
    tensor = {"name": "X", "datatype": "FP32", "shape": [1]}
    message = pb.ModelInferRequest(
        model_name=model, id=name, inputs=[tensor], raw_input_contents=[struct.pack("<f", x)]
    )
    for key, value in parameters.items():
        field = "bool_param" if isinstance(value, bool) else "int64_param" if isinstance(value, int) else "string_param"
        setattr(message.parameters[key], field, value)
    return message


def _written(message):
    return message if isinstance(message, bytes) else message.SerializeToString()


class Controlled:
    """Models and regions in memory; ``refuse`` makes loads and registrations fail."""

    def __init__(self, edge, replica_id, endpoints, *, models, disk):
        self.edge, self.replica_id, self.disk = edge, replica_id, disk
        self.loaded, self.regions_held, self.calls = dict.fromkeys(models, "READY"), {}, []
        self.logs = {"log_info": True, "log_verbose_level": 0, "log_format": "default"}
        self.traces = {"trace_level": ["OFF"], "trace_rate": "1000"}
        self.refuse, self.server, self.reasons, self._endpoints = None, None, {}, endpoints

    async def beat(self):
        ready = [name for name, state in self.loaded.items() if state == "READY"]
        states = [
            ModelState(name=n, version="1", state=s, reason=self.reasons.get(n, "" if s == "READY" else "unloaded"))
            for n, s in self.loaded.items()
        ]
        self.edge.beats[self.replica_id] = Heartbeat(
            replica_id=self.replica_id,
            kind="triton",
            endpoints=[Endpoint(model=n, straight=n != "together", **self._endpoints) for n in ready],
            models=states,
            control=self.server.control,
            metrics_url=self.server.metrics_url,
        )

    async def metrics(self):
        return f'# TYPE nv_inference_count counter\nnv_inference_count{{model="echo",version="1"}} {len(self.calls)}\n'

    async def index(self):
        return []

    async def load(self, name, parameters):
        self.calls.append(("load", name, dict(parameters)))
        if self.refuse:
            raise BadInput(self.refuse)
        if name not in self.disk and not parameters:
            raise NotFound(f"no model {name}")
        self.loaded[name] = "READY"
        await self.beat()

    async def unload(self, name, *, dependents):
        self.calls.append(("unload", name, dependents))
        if name not in self.loaded:
            raise NotFound(f"no model {name}")
        self.loaded[name] = "UNAVAILABLE"
        await self.beat()

    async def log_settings(self, changes):
        self.logs |= changes
        return self.logs

    async def trace_settings(self, model, changes):
        if model and model not in self.loaded:
            raise NotFound(model)
        self.traces |= changes
        return self.traces

    async def register_region(self, kind, name, body):
        if kind == "cuda":
            raise Unsupported("there is no GPU here")
        if self.refuse:
            raise EngineFailed(self.refuse)
        self.regions_held[name] = {"name": name, **body}

    async def unregister_region(self, kind, name):
        if name:
            self.regions_held.pop(name, None)
        else:
            self.regions_held.clear()

    async def regions(self, kind, name):
        if kind == "cuda":
            raise Unsupported("there is no GPU here")
        if name and name not in self.regions_held:
            raise NotFound(f"no region {name}")
        return [held for held in self.regions_held.values() if name in ("", held["name"])]


class Replica:
    """Answers for any model: ``decoupled`` answers as often as its input says, ``silent`` never."""

    def __init__(self, edge, replica_id, models=("echo", "decoupled", "silent", "together"), disk=("echo", "extra")):
        self.edge, self.replica_id, self._models, self._disk = edge, replica_id, models, disk
        self.cancelled, self.seen, self.bodies, self.uses = asyncio.Event(), [], [], []

    async def start(self):
        paths = ["", "/stats", "/config", "/ready", "/infer", "/generate", "/generate_stream"]
        routes = [Route("/v2/models/stats", self._stats)]
        routes += [Route(f"/v2/models/{{name}}{path}", self._http, methods=["GET", "POST"]) for path in paths]
        self.http = HttpServer(Starlette(routes=routes), drain_s=1)
        await self.http.start()
        self.grpc = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handlers = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(
                self._infer, pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
            ),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(
                self._stream, pb.ModelInferRequest.FromString, _written
            ),
        }
        self.grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        port = self.grpc.add_insecure_port("127.0.0.1:0")
        await self.grpc.start()
        ports = {"http": f"127.0.0.1:{self.http.port}", "grpc": f"127.0.0.1:{port}"}
        self.control = Controlled(self.edge, self.replica_id, ports, models=self._models, disk=self._disk)
        self.control.server = ControlServer(self.control, self.control.metrics, 1 << 20)
        await self.control.server.start()
        await self.control.beat()
        return self

    async def stop(self):
        self.edge.beats.pop(self.replica_id, None)
        await self.grpc.stop(None)
        await asyncio.gather(self.http.stop(), self.control.server.stop())

    async def _infer(self, message, context):
        self.seen.append(message)
        self.uses.append(dict(context.invocation_metadata()).get(USE_HEADER))
        if message.model_name == "full":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "full", (("grpc-retry-pushback-ms", "7000"),))
        await asyncio.sleep(message.parameters["sleep_ms"].int64_param / 1000)
        return pb.ModelInferResponse(model_name=message.model_name, id=message.id, parameters=self._me())

    def _me(self):
        return {"replica": pb.InferParameter(string_param=self.replica_id)}

    async def _stream(self, messages, context):
        self.uses.append(dict(context.invocation_metadata()).get(USE_HEADER))
        async for message in messages:
            self.seen.append(message)
            if message.model_name == "silent":
                continue
            if message.model_name == "nonsense":
                yield b"\xff\xff"
                continue
            if message.model_name == "failing":
                await context.abort(grpc.StatusCode.OUT_OF_RANGE, "that far I cannot count")
            if message.model_name == "refusing":
                response = pb.ModelInferResponse(id=message.id)
                yield pb.ModelStreamInferResponse(error_message="I refuse", infer_response=response)
                continue
            decoupled = message.model_name == "decoupled"
            times = int(struct.unpack("<f", message.raw_input_contents[0])[0]) if decoupled else 1
            for _ in range(times):
                yield self._answer(message, final=not decoupled, outputs=[{"name": "Y", "datatype": "FP32"}])
            if decoupled and message.parameters["triton_enable_empty_final_response"].bool_param:
                yield self._answer(message, final=True, outputs=[])

    def _answer(self, message, *, final, outputs):
        parameters = {**self._me(), "triton_final_response": pb.InferParameter(bool_param=final)}
        response = pb.ModelInferResponse(
            model_name=message.model_name, id=message.id, parameters=parameters, outputs=outputs
        )
        return pb.ModelStreamInferResponse(infer_response=response)

    async def _stats(self, asked: Request):
        return JSONResponse({"model_stats": [self._count("echo")]})

    def _count(self, model):
        batches = [{"batch_size": 1, "compute_infer": {"count": 1, "ns": 5}}]
        return {"name": model, "version": "1", "last_inference": 7, "inference_count": 2, "batch_stats": batches}

    async def _http(self, asked: Request):
        name, call = asked.path_params["name"], asked.url.path.rpartition("/")[2]
        self.bodies.append((await asked.body(), dict(asked.headers)))
        if call == "stats":
            return JSONResponse({"model_stats": [self._count(name)]})
        if call == name:
            version = "1" if self.replica_id == "one" else "2"
            tensors = [{"name": "X", "datatype": "FP32", "shape": ["-1"]}]
            return JSONResponse({"name": name, "versions": [version], "platform": "test", "inputs": tensors})
        if call == "generate_stream":
            return StreamingResponse(self._events(), media_type="text/event-stream")
        if name == "silent" and call == "infer":
            await asyncio.Event().wait()
        return Response(b'{"replica": "%s"}' % self.replica_id.encode(), media_type="application/json")

    async def _events(self):
        try:
            yield b'data: {"n": 1}\n\n'
            await asyncio.sleep(30)
        finally:
            self.cancelled.set()
