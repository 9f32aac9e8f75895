"""GatewayDeps: everything the gateway's routes need; made by the deployment or a test, read by every route.

The one invariant: routes hold no state of their own, so any gateway replica answers for any job.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from serving.artifacts.store import ArtifactStore
from serving.gateway.hub import EventHub
from serving.jobs.store import JobStore
from serving.jobs.submit import JobDesk
from serving.jobs.types import JobType
from serving.settings import Settings
from serving.telemetry import Exposition, exposition

MetricsParts = Callable[[], Awaitable[Sequence[Exposition]]]
ReadyCheck = Callable[[], Awaitable[None]]


async def _own_part() -> Sequence[Exposition]:
    return [Exposition(exposition(), {"part": "gateway"})]


async def _ready() -> None:
    return None


@dataclass(frozen=True, slots=True)
class GatewayDeps:
    """What routes need.

    Args:
        settings: resolved.
        catalog: every job type by name.
        store: jobs.
        desk: takes jobs in.
        artifacts: files.
        hub: tells watchers of new events.
        routers: more routes, for example OIP's control plane.
        metrics_parts: what ``/metrics`` merges; a gateway in a mesh is among the replicas that the edge asks.
        ready: raises :class:`serving.errors.Unavailable` while the gateway should get no traffic.
    """

    settings: Settings
    catalog: Mapping[str, JobType]
    store: JobStore
    desk: JobDesk
    artifacts: ArtifactStore
    hub: EventHub
    routers: Sequence[APIRouter] = ()
    metrics_parts: MetricsParts = field(default=_own_part)
    ready: ReadyCheck = field(default=_ready)


async def _deps_of(request: Request) -> GatewayDeps:  # what is not async, FastAPI runs in a thread
    deps: GatewayDeps = request.app.state.deps
    return deps


Deps = Annotated[GatewayDeps, Depends(_deps_of)]
