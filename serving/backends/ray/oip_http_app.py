"""The HTTP side of a Ray replica: an ASGI application over an OipPlane; run by OipServer.

The one invariant: it only translates; every decision is the plane's, every answer to an error is ``{"error": ...}``.
"""

from typing import Any, Final

import structlog
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from serving import telemetry
from serving.backends.ray.oip_http_infer import InferApp
from serving.backends.ray.oip_http_wire import error_headers
from serving.backends.ray.oip_plane import OipPlane
from serving.errors import ReelmeshError
from serving.protocol.oip_errors import error_body
from serving.protocol.oip_metadata import server_metadata
from serving.settings import LimitSettings

log = structlog.get_logger()

_MODEL: Final = "/v2/models/{name}"
_VERSION: Final = "/v2/models/{name}/versions/{version}"


def oip_app(plane: OipPlane, limits: LimitSettings) -> ASGIApp:
    """The application.

    Args:
        plane: answers.
        limits: of request bodies.
    """
    calls = _Calls(plane)
    per_model = {
        "": calls.metadata,
        "/ready": calls.model_ready,
        "/config": calls.config,
        "/stats": calls.statistics,
    }
    # Fixed paths first: "/v2/models/stats" is no model.
    routes = [
        Route("/v2/health/live", calls.live),
        Route("/v2/health/ready", calls.ready),
        Route("/v2/models/stats", calls.statistics),
        Route("/v2", calls.server),
        Route("/metrics", _metrics),
    ]
    routes += [Route(base + path, endpoint) for path, endpoint in per_model.items() for base in (_MODEL, _VERSION)]
    handlers: Any = {ReelmeshError: _refuse, HTTPException: _refuse_http, Exception: _fail}
    return InferApp(plane, limits, Starlette(routes=routes, exception_handlers=handlers))


class _Calls:
    def __init__(self, plane: OipPlane) -> None:
        self._plane = plane

    async def metadata(self, request: Request) -> Response:
        return _json(self._plane.metadata(*_model(request)))

    async def config(self, request: Request) -> Response:
        return _json(self._plane.config(*_model(request)))

    async def statistics(self, request: Request) -> Response:
        return _json(self._plane.statistics(*_model(request)))

    async def model_ready(self, request: Request) -> Response:
        self._plane.find(*_model(request))
        return await self.ready(request)

    async def server(self, request: Request) -> Response:
        return _json(server_metadata())

    async def live(self, request: Request) -> Response:
        return Response()

    async def ready(self, request: Request) -> Response:
        return Response(status_code=503 if self._plane.draining else 200)


async def _metrics(request: Request) -> Response:
    return Response(telemetry.exposition(), media_type="text/plain; version=0.0.4")


def _model(request: Request) -> tuple[str, str]:
    return request.path_params.get("name", ""), request.path_params.get("version", "")


def _json(document: dict[str, Any], status: int = 200) -> Response:
    return Response(to_json(document), status, media_type="application/json")


async def _refuse(request: Request, error: ReelmeshError) -> Response:
    answer = _json(error_body(error), error.http_status)
    answer.headers.update(error_headers(error))
    return answer


async def _refuse_http(request: Request, error: HTTPException) -> Response:
    return _json({"error": f"{request.method} {request.url.path[:256]}: {error.detail}"}, error.status_code)


async def _fail(request: Request, error: Exception) -> Response:
    log.error("oip_http_failed", path=request.url.path[:256], error=str(error)[:256])
    return _json({"error": "internal error"}, 500)
