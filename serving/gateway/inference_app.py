"""create_inference_app: the gateway's application without jobs, artifacts and pages; what `reelmesh serve` runs.

The one invariant: it holds inference, health and metrics alone; every other address says so with a 404.
"""

from collections.abc import Sequence
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from serving.errors import NotFound
from serving.gateway.deps import MetricsParts
from serving.gateway.errors import error_response, install_error_handlers
from serving.gateway.guard import Guard
from serving.protocol.oip_metadata import SERVER_NAME, server_version
from serving.telemetry import exposition, merge_expositions

_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
_METHODS: Final = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def create_inference_app(routers: Sequence[APIRouter], metrics_parts: MetricsParts) -> FastAPI:
    """The application.

    Args:
        routers: the OIP's routes.
        metrics_parts: what ``/metrics`` merges.
    """
    app = FastAPI(title="Reelmesh", summary="Inference.", version="1", docs_url=None, redoc_url=None)
    install_error_handlers(app)
    for router in (*routers, _router(metrics_parts)):
        app.include_router(router)
    app.add_middleware(Guard)
    return app


def _router(metrics_parts: MetricsParts) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/")
    async def about() -> dict[str, Any]:
        """What this is and where to go on."""
        return {
            "name": SERVER_NAME,
            "version": server_version(),
            "about": "An inference server of the Open Inference Protocol (version 2). Jobs and pages: `reelmesh up`.",
            "see": ["/v2", "/v2/health/ready", "/v2/repository/index", "/metrics"],
        }

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the gateway runs."""
        return {"status": "ok"}

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus' text format: the whole mesh, each process with its own label ``part``."""
        return PlainTextResponse(merge_expositions(await metrics_parts()), media_type=_TEXT)

    @router.get("/metrics/own", response_class=PlainTextResponse, include_in_schema=False)
    async def own_metrics() -> Response:
        """This process alone, for the edge, which asks every replica."""
        return PlainTextResponse(exposition(), media_type=_TEXT)

    @router.api_route("/v1/{path:path}", methods=_METHODS, include_in_schema=False)
    async def no_jobs(request: Request) -> JSONResponse:
        """Clients of the job API learn which mesh they have reached."""
        problem = f"this mesh serves inference alone, there is no {request.method} {request.url.path[:200]}"
        return error_response(NotFound(problem, fix="`reelmesh up` starts a mesh with jobs"))

    return router
