"""Routes for operators: liveness and metrics; part of the gateway's application.

The one invariant: both answer quickly and say nothing that a client may not know.
"""

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from serving.gateway.deps import Deps
from serving.jobs.states import WAITING
from serving.jobs.types import Lane
from serving.telemetry import JOBS, QUEUE_DEPTH, exposition, merge_expositions

router = APIRouter(tags=["health"])

_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"


class Health(BaseModel):
    """``ok`` when jobs can be taken."""

    status: Literal["ok"] = "ok"
    job_types: list[str]


async def _checked(deps: Deps) -> None:
    await deps.ready()
    await deps.store.last_events([])


@router.get("/healthz")
async def healthz(deps: Deps, _ready: Annotated[None, Depends(_checked)]) -> Health:
    """Whether the gateway can take jobs: its database answers."""
    return Health(job_types=sorted(deps.catalog))


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(deps: Deps) -> Response:
    """Prometheus' text format: the whole mesh, each process with its own label ``part``."""
    await _count_jobs(deps)
    return PlainTextResponse(merge_expositions(await deps.metrics_parts()), media_type=_TEXT)


@router.get("/metrics/own", response_class=PlainTextResponse, include_in_schema=False)
async def own_metrics(deps: Deps) -> Response:
    """This process alone, for the edge, which asks every replica."""
    await _count_jobs(deps)
    return PlainTextResponse(exposition(), media_type=_TEXT)


async def _count_jobs(deps: Deps) -> None:
    counts = await deps.store.counts()
    JOBS.clear()
    waiting: dict[Lane, int] = {}
    for (type_name, state, lane), count in counts.items():
        JOBS.labels(type_name, state).inc(count)
        if state in WAITING:
            waiting[lane] = waiting.get(lane, 0) + count
    for lane in Lane:
        QUEUE_DEPTH.labels(f"lane:{lane}").set(waiting.get(lane, 0))
