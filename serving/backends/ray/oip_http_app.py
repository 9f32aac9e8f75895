"""The HTTP side of a Ray replica: an ASGI application over an OipPlane; run by OipServer.

The one invariant: it only translates; every decision is the plane's, every answer to an error is ``{"error": ...}``.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive

from serving import telemetry
from serving.backends.ray.oip_plane import OipPlane
from serving.errors import BadInput, ReelmeshError, TooLarge
from serving.protocol.oip import InferRequest, InferResponse
from serving.protocol.oip_compression import decompress
from serving.protocol.oip_config import input_specs
from serving.protocol.oip_errors import error_body
from serving.protocol.oip_http import HEADER_LENGTH, decode_request, encode_response, header_length
from serving.protocol.oip_metadata import server_metadata

log = structlog.get_logger()

_CLIENT_GONE: Final = 499
_MODEL: Final = "/v2/models/{name}"
_VERSION: Final = "/v2/models/{name}/versions/{version}"


def oip_app(plane: OipPlane, body_bytes: int) -> Starlette:
    """The application.

    Args:
        plane: answers.
        body_bytes: largest request body, both as received and decompressed.
    """
    calls = _Calls(plane, body_bytes)
    per_model: dict[str, tuple[str, Callable[[Request], Awaitable[Response]]]] = {
        "/infer": ("POST", calls.infer),
        "": ("GET", calls.metadata),
        "/ready": ("GET", calls.model_ready),
        "/config": ("GET", calls.config),
        "/stats": ("GET", calls.statistics),
    }
    # Fixed paths first: "/v2/models/stats" is no model.
    routes = [
        Route("/v2/health/live", calls.live),
        Route("/v2/health/ready", calls.ready),
        Route("/v2/models/stats", calls.statistics),
        Route("/v2", calls.server),
        Route("/metrics", _metrics),
    ]
    routes += [
        Route(base + path, endpoint, methods=[method])
        for path, (method, endpoint) in per_model.items()
        for base in (_MODEL, _VERSION)
    ]
    handlers: Any = {ReelmeshError: _refuse, HTTPException: _refuse_http, Exception: _fail}
    return Starlette(routes=routes, exception_handlers=handlers)


class _Calls:
    def __init__(self, plane: OipPlane, body_bytes: int) -> None:
        self._plane = plane
        self._body_bytes = body_bytes

    async def infer(self, request: Request) -> Response:
        name, version = _model(request)
        config, _ = self._plane.find(name, version)
        received = await _body(request, self._body_bytes)
        body = decompress(received, request.headers.get("content-encoding", ""), self._body_bytes)
        json_bytes = header_length(request.headers.get(HEADER_LENGTH), len(body))
        asked = decode_request(body, json_bytes, name, version, input_specs(config), self._plane.regions)
        answer = await _unless_gone(self._plane.infer(asked, "http"), request.receive)
        if answer is None:
            return Response(status_code=_CLIENT_GONE)
        return _encoded(answer, asked)

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


async def _body(request: Request, limit_bytes: int) -> bytes:
    """The body as received; raises :class:`TooLarge` before the memory is spent."""
    too_large = TooLarge(f"is over {limit_bytes} bytes", field="request body", fix="raise limits.infer_bytes")
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit():
        raise BadInput("must be a number", field="Content-Length")
    if int(declared) > limit_bytes:
        raise too_large
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > limit_bytes:
            raise too_large
        pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def _unless_gone(work: Awaitable[InferResponse], receive: Receive) -> InferResponse | None:
    """The work's result; None when the client disconnects first, in which case the work is cancelled."""
    working = asyncio.ensure_future(work)
    watching: asyncio.Future[Message] = asyncio.ensure_future(receive())
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        watching.cancel()
        if not working.done():
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError, ReelmeshError):
                await working


def _encoded(answer: InferResponse, asked: InferRequest) -> Response:
    pieces, json_bytes = encode_response(answer, asked)
    if json_bytes is None:
        return Response(bytes(pieces[0]), media_type="application/json")
    return Response(b"".join(pieces), headers={HEADER_LENGTH: str(json_bytes)}, media_type="application/octet-stream")


def _json(document: dict[str, Any], status: int = 200) -> Response:
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
    log.error("oip_http_failed", path=request.url.path[:256], error=str(error)[:256])
    return _json({"error": "internal error"}, 500)
