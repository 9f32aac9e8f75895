"""The OIP over HTTP, for the whole mesh; a router of the gateway's application.

The one invariant: under ``/v2`` every answer to an error is ``{"error": "<text>"}``, which tritonclient reads.
"""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Final

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from serving.errors import BadInput, EngineFailed, NotFound, ReelmeshError, Unavailable
from serving.gateway.oip_http_body import Bodies
from serving.gateway.oip_http_control import ControlCalls, add_control_routes
from serving.gateway.oip_http_json import body_object, read_body, refused, whole
from serving.gateway.oip_look import LOOK_S, model_path
from serving.gateway.oip_parts import MeshPlane
from serving.protocol.licences import use_of
from serving.protocol.oip_errors import wrong_method_body
from serving.protocol.oip_http import HEADER_LENGTH

log = structlog.get_logger()

Handler = Callable[[Request], Coroutine[None, None, Response]]

_BASES: Final = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
_ANSWER_S: Final = 3600.0
_METHODS: Final = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_INDEX_BODY_BYTES: Final = 64 << 10
_GENERATES: Final = ("generate", "generate_stream")
_ALLOWED: Final = {"ready": "GET", "config": "GET", **dict.fromkeys(("infer", *_GENERATES), "POST")}
"""Calls to a model and the one method of each."""


class _OipRoute(APIRoute):
    """A route whose errors have the protocol's shape, not the gateway's."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                return await handle(request)
            except ReelmeshError as error:
                return refused(error)
            except Exception:  # a bug of ours must be told in the protocol's shape too
                log.exception("oip_http_failed", path=request.url.path[:256])
                return refused(EngineFailed("the gateway failed; its log says more"))

        return guarded


def oip_router(plane: MeshPlane) -> APIRouter:
    """The router over the parts that both wires share."""
    calls = _Calls(plane)
    router = APIRouter(route_class=_OipRoute, tags=["inference"])
    router.add_api_route("/v2/health/live", calls.live)
    router.add_api_route("/v2/health/ready", calls.ready)
    router.add_api_route("/v2", calls.server)
    router.add_api_route("/v2/models/stats", calls.statistics)
    router.add_api_route("/v2/repository/index", calls.index, methods=["POST"])
    for base in _BASES:
        router.add_api_route(base, calls.metadata)
        router.add_api_route(f"{base}/stats", calls.statistics)
        router.add_api_route(f"{base}/{{call}}", calls.act, methods=_METHODS)
    add_control_routes(router, ControlCalls(plane))
    router.add_api_route("/v2/{path:path}", calls.nothing, methods=_METHODS, include_in_schema=False)
    return router


class _Calls:
    """What the routes do. FastAPI reads the methods' annotations."""

    def __init__(self, plane: MeshPlane) -> None:
        self._plane = plane
        self._bodies = Bodies(plane.limits)

    async def live(self) -> Response:
        """Whether the gateway runs."""
        return Response()

    async def ready(self) -> Response:
        """200 when every model that should be served has a replica."""
        if missing := await self._plane.mesh.missing():
            raise Unavailable(f"models that are not ready: {', '.join(missing)[:200]}")
        return Response()

    async def server(self) -> Response:
        """Name, version and extensions of the mesh."""
        return whole(self._plane.mesh.metadata())

    async def index(self, request: Request) -> Response:
        """Every model and its state."""
        asked = await body_object(request, _INDEX_BODY_BYTES)
        return whole(await self._plane.mesh.index(index_wants_ready(asked)))

    async def metadata(self, request: Request) -> Response:
        """Inputs, outputs and versions of one model."""
        return whole(await self._plane.look.metadata(*_model(request)))

    async def statistics(self, request: Request) -> Response:
        """Statistics of one model or all, summed over their replicas."""
        return whole(await self._plane.look.statistics(*_model(request)))

    async def act(self, request: Request, call: str) -> Response:
        """What one replica of the model answers: readiness, configuration, inference."""
        allowed = _ALLOWED.get(call)
        if allowed is None:
            return await self.nothing(request)
        if request.method != allowed:
            return whole(wrong_method_body(request.method, request.url.path, allowed), 405, {"Allow": allowed})
        if allowed == "POST":
            return await self._infer(request, call)
        find = partial(self._plane.mesh.find, *_model(request), None)
        return await self._plane.relay.send(request, find, model_path(*_model(request), f"/{call}"), b"", LOOK_S)

    async def nothing(self, request: Request) -> Response:
        """Any other path."""
        raise NotFound(f"there is no {request.method} {request.url.path[:200]}", fix="GET /v2 names the extensions")

    async def _infer(self, request: Request, call: str) -> Response:
        name, version = _model(request)
        serving = await self._plane.mesh.serving(name, version)
        await self._plane.mesh.permit(name, use_of(request.headers))
        encoding, length = request.headers.get("content-encoding", ""), request.headers.get(HEADER_LENGTH)
        with self._plane.budget.holding() as held:
            received = await read_body(request, self._plane.limits.infer_bytes, held)
            body, json_bytes = await self._bodies.checked(received, encoding, None if call in _GENERATES else length)
            held.take(len(body) if encoding else 0)
            together = not all(replica.straight for replica in serving)
            sequence = await self._bodies.sequence(body[:json_bytes]) if together else None
            find = partial(self._plane.mesh.find, name, version, sequence)
            path = model_path(name, version, f"/{call}")
            return await self._plane.relay.send(request, find, path, body, _ANSWER_S)


def index_wants_ready(asked: object) -> bool:
    """What a repository index request says of ``ready``; raises :class:`BadInput`."""
    wanted = asked.get("ready", False) if isinstance(asked, dict) else False
    if not isinstance(wanted, bool):
        raise BadInput("must be a boolean", field="ready")
    return wanted


def _model(request: Request) -> tuple[str, str]:
    return request.path_params.get("name", ""), request.path_params.get("version", "")
