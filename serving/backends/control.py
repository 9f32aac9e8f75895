"""ControlServer: a replica's control port, OIP's control paths behind a token; held by Triton and Ray replicas,
called by the gateway, its metrics by the edge.

The one invariant: it only translates; what a call does is the ReplicaControl's, every answer to an error is
``{"error": "<text>"}``, and without the token nothing but metrics is told.
"""

import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, Protocol

import structlog
from pydantic import JsonValue
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from serving.backends.address import LOOPBACK
from serving.backends.http_server import HttpServer
from serving.errors import BadInput, EngineFailed, NotFound, ReelmeshError, TooLarge, Unavailable
from serving.protocol.control import TOKEN_HEADER, Control, ModelState
from serving.protocol.oip_errors import error_body
from serving.protocol.oip_json import parse_object
from serving.settings import InferenceSettings, LimitSettings

log = structlog.get_logger()

RegionKind = Literal["system", "cuda"]
Json = Mapping[str, JsonValue]

SMALL_BODY_BYTES: Final = 64 << 10
"""Bound on every body but that of a load, which may carry a model's files."""
UNAUTHORIZED: Final = 401
_CLIENT_GONE: Final = 499
_JSON_BYTES: Final = 1 << 20
"""What JSON needs around a load's files."""
_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def check_mode(inference: InferenceSettings) -> None:
    """Refuse clients' loads and unloads, as Triton does, where models are not controlled explicitly."""
    if inference.model_control_mode != "explicit":
        raise Unavailable(
            "explicit model load / unload is not allowed if polling is enabled",
            fix="start the mesh with --model-control-mode explicit",
        )


class ReplicaControl(Protocol):
    """What a replica can be asked by the control plane; raises :class:`ReelmeshError` in Triton's words.

    A model or region that it does not know is :class:`NotFound`.
    """

    async def index(self) -> list[ModelState]:
        """Every model and version that it holds or should hold."""

    async def load(self, name: str, parameters: Json) -> None:
        """Load or reload a model; returns once the edge knows its endpoint.

        Args:
            name: of the model.
            parameters: OIP's: ``config`` (JSON as a string) and ``file:<path>`` (base64) overrides.
        """

    async def unload(self, name: str, *, dependents: bool) -> None:
        """Take a model out of rotation, then unload it, with ``dependents`` an ensemble's steps too."""

    async def log_settings(self, changes: Json) -> dict[str, JsonValue]:
        """Apply changes, which may be none; the settings then in force."""

    async def trace_settings(self, model: str, changes: Json) -> dict[str, JsonValue]:
        """Apply changes, which may be none, to one model or (empty name) all; the settings then in force."""

    async def register_region(self, kind: RegionKind, name: str, body: Json) -> None:
        """Map a region of shared memory."""

    async def unregister_region(self, kind: RegionKind, name: str) -> None:
        """Let go of one region, or (empty name) all of its kind."""

    async def regions(self, kind: RegionKind, name: str) -> list[dict[str, JsonValue]]:
        """One region as OIP's status shows it, or (empty name) all of its kind."""


class ControlServer:
    """Serves one replica's control port.

    Args:
        replica: answers the calls.
        metrics: makes the Prometheus exposition of ``GET /metrics``.
        load_bytes: largest body of a load.
        host: address to listen on.
    """

    def __init__(
        self,
        replica: ReplicaControl,
        metrics: Callable[[], Awaitable[str]],
        load_bytes: int,
        host: str = LOOPBACK,
    ) -> None:
        token = secrets.token_hex(32)
        self._server = HttpServer(control_app(replica, metrics, load_bytes, token), host, name="the control port")
        address = f"{host}:{self._server.port}"
        self.control = Control(address=address, token=token)
        self.metrics_url = f"http://{address}/metrics"

    async def start(self) -> None:
        """Serve; returns when calls are taken."""
        await self._server.start()

    def check(self) -> None:
        """Raise :class:`Unavailable` once it has ended."""
        self._server.check()

    async def stop(self) -> None:
        """Let calls in flight finish and close the port."""
        await self._server.stop()


def load_bytes(limits: LimitSettings) -> int:
    """The largest load that a gateway passes on: a gRPC message of ``infer_bytes``, with its files in base64."""
    return limits.infer_bytes * 4 // 3 + _JSON_BYTES


def control_app(
    replica: ReplicaControl, metrics: Callable[[], Awaitable[str]], load_bytes: int, token: str
) -> Starlette:
    """The application; arguments as :class:`ControlServer`'s."""
    calls = _Calls(replica, metrics, load_bytes, token)
    handlers: Any = {ReelmeshError: _refuse, HTTPException: _refuse_http, Exception: _fail}
    return Starlette(routes=[Route("/metrics", calls.metrics), *calls.routes()], exception_handlers=handlers)


class _Calls:
    def __init__(
        self, replica: ReplicaControl, metrics: Callable[[], Awaitable[str]], load_bytes: int, token: str
    ) -> None:
        self._replica = replica
        self._metrics = metrics
        self._load_bytes = load_bytes
        self._token = token.encode()

    def routes(self) -> list[Route]:
        """Every route that wants the token."""
        model, region = "/v2/repository/models/{name}", "/v2/{kind}sharedmemory"
        paths: list[tuple[str, Callable[[Request], Awaitable[Response]], list[str]]] = [
            ("/v2/repository/index", self.index, ["POST"]),
            (f"{model}/load", self.load, ["POST"]),
            (f"{model}/unload", self.unload, ["POST"]),
            ("/v2/logging", self.logging, ["GET", "POST"]),
            ("/v2/trace/setting", self.trace, ["GET", "POST"]),
            ("/v2/models/{name}/trace/setting", self.trace, ["GET", "POST"]),
            (f"{region}/status", self.regions, ["GET"]),
            (f"{region}/region/{{name}}/status", self.regions, ["GET"]),
            (f"{region}/region/{{name}}/register", self.register, ["POST"]),
            (f"{region}/unregister", self.unregister, ["POST"]),
            (f"{region}/region/{{name}}/unregister", self.unregister, ["POST"]),
        ]
        return [Route(path, self._guarded(call), methods=methods) for path, call, methods in paths]

    def _guarded(self, call: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            if not hmac.compare_digest(request.headers.get(TOKEN_HEADER, "").encode(), self._token):
                return _json({"error": "this port is the mesh's own"}, UNAUTHORIZED)
            return await call(request)

        return guarded

    async def metrics(self, request: Request) -> Response:
        return Response(await self._metrics(), media_type=_METRICS_TYPE)

    async def index(self, request: Request) -> Response:
        ready = (await _object(request, SMALL_BODY_BYTES)).get("ready", False)
        states = [state for state in await self._replica.index() if ready is not True or state.state == "READY"]
        return _json([_index_entry(state) for state in states])

    async def load(self, request: Request) -> Response:
        await self._replica.load(_name(request), _parameters(await _object(request, self._load_bytes)))
        return Response()

    async def unload(self, request: Request) -> Response:
        dependents = _parameters(await _object(request, SMALL_BODY_BYTES)).get("unload_dependents", False)
        if not isinstance(dependents, bool):
            raise BadInput("must be a boolean", field="parameters.unload_dependents")
        await self._replica.unload(_name(request), dependents=dependents)
        return Response()

    async def logging(self, request: Request) -> Response:
        return _json(await self._replica.log_settings(await _object(request, SMALL_BODY_BYTES)))

    async def trace(self, request: Request) -> Response:
        changes = await _object(request, SMALL_BODY_BYTES)
        return _json(await self._replica.trace_settings(_name(request), changes))

    async def regions(self, request: Request) -> Response:
        return _json(await self._replica.regions(_kind(request), _name(request)))

    async def register(self, request: Request) -> Response:
        body = await _object(request, SMALL_BODY_BYTES)
        await self._replica.register_region(_kind(request), _name(request), body)
        return Response()

    async def unregister(self, request: Request) -> Response:
        await self._replica.unregister_region(_kind(request), _name(request))
        return Response()


def _name(request: Request) -> str:
    return str(request.path_params.get("name", ""))


def _kind(request: Request) -> RegionKind:
    kind = request.path_params["kind"]
    if kind == "system":
        return "system"
    if kind == "cuda":
        return "cuda"
    raise NotFound(f"there is no {kind[:32]!r} shared memory", fix="use systemsharedmemory or cudasharedmemory")


def _index_entry(state: ModelState) -> dict[str, str]:
    """As Triton shows it: what is empty is left out."""
    return {name: value for name, value in state.model_dump().items() if value}


def _parameters(document: Json) -> Json:
    parameters = document.get("parameters", {})
    if not isinstance(parameters, dict):
        raise BadInput("must be an object", field="parameters")
    return parameters


async def _object(request: Request, limit_bytes: int) -> Json:
    """The JSON body, empty where there is none; raises :class:`TooLarge` before the memory is spent."""
    too_large = TooLarge(f"is over {limit_bytes} bytes", field="request body")
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > limit_bytes:
        raise too_large
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit_bytes:
            raise too_large
    return parse_object(bytes(body), "request body") if body.strip() else {}


def _json(document: object, status: int = 200) -> Response:
    return Response(to_json(document), status, media_type="application/json")


async def _refuse(request: Request, error: ReelmeshError) -> Response:
    answer = _json(error_body(error), error.http_status)
    if isinstance(error, TooLarge):
        # Else the server would go on reading, and dropping, whatever the client still sends.
        answer.headers["Connection"] = "close"
    return answer


async def _refuse_http(request: Request, error: HTTPException) -> Response:
    return _json({"error": f"{request.method} {request.url.path[:256]}: {error.detail}"}, error.status_code)


async def _fail(request: Request, error: Exception) -> Response:
    if isinstance(error, ClientDisconnect):
        return Response(status_code=_CLIENT_GONE)
    log.error("control_failed", path=request.url.path[:256], error=str(error)[:256])
    return await _refuse(request, EngineFailed("the control port failed; the replica's log says more"))
