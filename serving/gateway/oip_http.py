"""The OIP's control plane over HTTP, for the whole mesh; a router of the gateway's application.

The one invariant: under ``/v2`` every answer to an error is ``{"error": "<text>"}``, which tritonclient reads;
inference comes here only when the edge knows no replica of the model.
"""

import asyncio
import json
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final

import httpx
import structlog
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic_core import to_json

from serving.errors import EngineFailed, NotFound, ReelmeshError, Unavailable, foreign_text
from serving.gateway.bodies import bounded_stream
from serving.gateway.oip_mesh import INDEX_BODY_BYTES, Endpoints, OipMesh, index_wants_ready, merge_statistics
from serving.protocol.oip_errors import error_body
from serving.settings import LimitSettings

log = structlog.get_logger()

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_MODEL: Final = "/v2/models/{name}"
_VERSION: Final = "/v2/models/{name}/versions/{version}"
_LOOK_S: Final = 10.0
# A replica that stops waits for its connections, so none is kept.
_CONNECTIONS: Final = httpx.Limits(max_connections=256, max_keepalive_connections=0)
_ANSWER_S: Final = 3600.0
_RETRY_AFTER_S: Final = "1"
_FORWARDED: Final = (
    "content-type", "content-encoding", "accept-encoding", "accept", "inference-header-content-length",
)  # fmt: skip
_RETURNED: Final = ("content-type", "content-encoding", "inference-header-content-length", "retry-after")
_METHODS: Final = ["GET", "POST", "PUT", "PATCH", "DELETE"]


class _OipRoute(APIRoute):
    """A route whose errors have the protocol's shape, not the gateway's."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                return await handle(request)
            except ReelmeshError as error:
                return _refusal(error)
            except Exception:
                log.exception("oip_http_failed", path=request.url.path[:256])
                return _refusal(EngineFailed("the gateway failed; its log says more"))

        return guarded


def oip_router(
    endpoints: Endpoints,
    limits: LimitSettings,
    expected: Collection[str] = (),
    client: httpx.AsyncClient | None = None,
) -> APIRouter:
    """The router.

    Args:
        endpoints: asks the edge where replicas listen.
        limits: bounds of bodies.
        expected: models without whose replicas the mesh is not ready.
        client: for calls to replicas, owned by the caller; None makes one that keeps no connections.
    """
    calls = _Calls(OipMesh(endpoints, expected), limits, client or _client())
    router = APIRouter(route_class=_OipRoute, tags=["inference"])
    router.add_api_route("/v2/health/live", calls.live)
    router.add_api_route("/v2/health/ready", calls.ready)
    router.add_api_route("/v2", calls.server)
    router.add_api_route("/v2/models/stats", calls.all_statistics)
    router.add_api_route("/v2/repository/index", calls.index, methods=["POST"])
    for base in (_MODEL, _VERSION):
        for path in ("", "/ready", "/config", "/stats"):
            router.add_api_route(base + path, calls.look)
        router.add_api_route(base + "/infer", calls.infer, methods=["POST"])
    router.add_api_route("/v2/{path:path}", calls.nothing, methods=_METHODS, include_in_schema=False)
    return router


class _Calls:
    """What the routes do. FastAPI reads the methods' annotations."""

    def __init__(self, mesh: OipMesh, limits: LimitSettings, client: httpx.AsyncClient) -> None:
        self._mesh = mesh
        self._limits = limits
        self._client = client

    async def live(self) -> Response:
        """Whether the gateway runs."""
        return Response()

    async def ready(self) -> Response:
        """200 when every expected model has a replica."""
        if missing := await self._mesh.missing():
            raise Unavailable(f"models without a replica: {', '.join(missing)[:200]}")
        return Response()

    async def server(self) -> Response:
        """Name, version and extensions of the mesh."""
        return _json(self._mesh.metadata())

    async def index(self, request: Request) -> Response:
        """Every model and its state."""
        body = await _body(request, INDEX_BODY_BYTES)
        return _json(await self._mesh.index(index_wants_ready(body)))

    async def all_statistics(self) -> Response:
        """Statistics of all models, summed over their replicas."""
        addresses = sorted({endpoint.http for endpoint in await self._mesh.replicas()})
        return _json(merge_statistics(await asyncio.gather(*(self._statistics(each) for each in addresses))))

    async def look(self, request: Request) -> Response:
        """Metadata, readiness, configuration or statistics of one model, as a replica tells them."""
        return await self._forward(request, b"", _LOOK_S)

    async def infer(self, request: Request) -> Response:
        """Inference that the edge did not route by itself."""
        body = await _body(request, self._limits.infer_bytes)
        return await self._forward(request, body, _ANSWER_S)

    async def nothing(self, request: Request) -> Response:
        """Any other path."""
        raise NotFound(f"there is no {request.method} {request.url.path[:200]}", fix="GET /v2 names the extensions")

    async def _forward(self, request: Request, body: bytes, patience_s: float) -> Response:
        names = request.path_params
        replica = await self._mesh.find(names["name"], names.get("version", ""))
        url = httpx.URL(f"http://{replica.http}", raw_path=request.scope.get("raw_path") or request.url.path.encode())
        headers = {name: value for name in _FORWARDED if (value := request.headers.get(name)) is not None}
        timeout = httpx.Timeout(patience_s, connect=1.0)
        asked = self._client.build_request(request.method, url, headers=headers, content=body, timeout=timeout)
        try:
            answer = await self._client.send(asked, stream=True)
            # Raw, since the header that names the compression is passed on too.
            content = b"".join([piece async for piece in answer.aiter_raw()])
            await answer.aclose()
        except httpx.HTTPError as error:
            raise _no_answer(replica.model, error) from error
        passed = {name: value for name in _RETURNED if (value := answer.headers.get(name)) is not None}
        return Response(content, answer.status_code, passed)

    async def _statistics(self, address: str) -> dict[str, Any]:
        try:
            answer = await self._client.get(f"http://{address}/v2/models/stats", timeout=_LOOK_S)
            document = answer.json() if answer.is_success else {}
        except (httpx.HTTPError, json.JSONDecodeError) as error:
            log.warning("oip_statistics_failed", replica=address, error=foreign_text(error))
            return {}
        return document if isinstance(document, dict) else {}


def _no_answer(model: str, error: httpx.HTTPError) -> Unavailable:
    return Unavailable(
        f"the replica of the model '{model}' did not answer: {foreign_text(error) or type(error).__name__}",
        fix="try again in a moment",
    )


def _client() -> httpx.AsyncClient:
    # Replicas are neighbours: a proxy that the environment names for the world outside cannot reach them.
    return httpx.AsyncClient(limits=_CONNECTIONS, trust_env=False)


async def _body(request: Request, limit_bytes: int) -> bytes:
    return b"".join([piece async for piece in bounded_stream(request, limit_bytes, what="the request body")])


def _refusal(error: ReelmeshError) -> Response:
    headers = {"Retry-After": _RETRY_AFTER_S} if error.retryable else {}
    return _json(error_body(error), error.http_status, headers)


def _json(document: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(document), status, headers, media_type="application/json")
