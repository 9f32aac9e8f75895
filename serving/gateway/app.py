"""create_app: the gateway's FastAPI application, put together from its routes; called by the deployment and by tests.

The one invariant: every answer carries the security headers, and no page loads anything from another host.
"""

from pathlib import Path
from typing import Final

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from serving.gateway import artifacts, events, forks, health, job_artifacts, jobs, pages, results
from serving.gateway.deps import GatewayDeps
from serving.gateway.errors import install_error_handlers
from serving.gateway.guard import Guard
from serving.gateway.openapi import install_openapi
from serving.gateway.views import EventView
from serving.jobs.fork import Edits
from serving.jobs.submit import JobRequest

STATIC: Final = Path(__file__).parent / "static"


def create_app(deps: GatewayDeps) -> FastAPI:
    """The application of one gateway."""
    # Swagger's page would load scripts from another host; /openapi.json is enough for tools.
    app = FastAPI(
        title="Reelmesh",
        summary="Jobs, artifacts and control of the mesh.",
        version="1",
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.deps = deps
    install_error_handlers(app)
    own = (jobs, forks, results, events, job_artifacts, artifacts, health, pages)
    for router in (*deps.routers, *(part.router for part in own)):
        app.include_router(router)
    install_openapi(app, [JobRequest, Edits, EventView])
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_middleware(Guard)
    return app
