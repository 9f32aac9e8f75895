"""OIP's control routes over HTTP: model control, shared memory, log and trace settings; added to the gateway's router.

The one invariant: they only translate; what a call does is the ControlPlane's.
"""

from typing import Final

from fastapi import APIRouter, Request, Response
from pydantic import JsonValue

from serving.backends.control import SMALL_BODY_BYTES
from serving.errors import BadInput, NotFound
from serving.gateway.oip_control import Kind
from serving.gateway.oip_http_json import body_object, whole
from serving.gateway.oip_parts import MeshPlane

_SETTINGS: Final = ["GET", "POST"]


def add_control_routes(router: APIRouter, calls: "ControlCalls") -> None:
    """Add the routes."""
    model = "/v2/repository/models/{name}"
    router.add_api_route(f"{model}/load", calls.load, methods=["POST"])
    router.add_api_route(f"{model}/unload", calls.unload, methods=["POST"])
    router.add_api_route("/v2/logging", calls.logging, methods=_SETTINGS)
    for path in ("/v2/trace/setting", "/v2/models/{name}/trace/setting"):
        router.add_api_route(path, calls.trace, methods=_SETTINGS)
    for base in ("/v2/{kind}sharedmemory", "/v2/{kind}sharedmemory/region/{name}"):
        router.add_api_route(f"{base}/status", calls.regions)
        router.add_api_route(f"{base}/unregister", calls.unregister, methods=["POST"])
    router.add_api_route("/v2/{kind}sharedmemory/region/{name}/register", calls.register, methods=["POST"])


class ControlCalls:
    """What the routes do.

    Args:
        plane: does it; its limit ``infer_bytes`` bounds a load's body.
    """

    def __init__(self, plane: MeshPlane) -> None:
        self._control = plane.control
        self._plane = plane

    async def load(self, request: Request, name: str) -> Response:
        """Load or reload a model everywhere."""
        with self._plane.budget.holding() as held:
            asked = await body_object(request, self._plane.limits.infer_bytes, held)
            await self._control.load(name, _parameters(asked))
        return Response()

    async def unload(self, request: Request, name: str) -> Response:
        """Unload a model everywhere."""
        await self._control.unload(name, _parameters(await body_object(request, SMALL_BODY_BYTES)))
        return Response()

    async def logging(self, request: Request) -> Response:
        """Log settings of all replicas."""
        return whole(await self._control.log_settings(await body_object(request, SMALL_BODY_BYTES)))

    async def trace(self, request: Request) -> Response:
        """Trace settings of all models, or of one."""
        changes = await body_object(request, SMALL_BODY_BYTES)
        return whole(await self._control.trace_settings(request.path_params.get("name", ""), changes))

    async def regions(self, request: Request) -> Response:
        """Registered regions of shared memory."""
        return whole(await self._control.regions(*_region(request)))

    async def register(self, request: Request) -> Response:
        """Register a region with every replica."""
        await self._control.register(*_region(request), await body_object(request, SMALL_BODY_BYTES))
        return Response()

    async def unregister(self, request: Request) -> Response:
        """Unregister one region, or all."""
        await self._control.unregister(*_region(request))
        return Response()


def _region(request: Request) -> tuple[Kind, str]:
    kind, name = request.path_params["kind"], request.path_params.get("name", "")
    if kind == "system":
        return "system", name
    if kind == "cuda":
        return "cuda", name
    raise NotFound(f"there is no {kind[:32]!r} shared memory", fix="use systemsharedmemory or cudasharedmemory")


def _parameters(document: dict[str, JsonValue]) -> dict[str, JsonValue]:
    parameters = document.get("parameters", {})
    if not isinstance(parameters, dict):
        raise BadInput("must be an object", field="parameters")
    return parameters
