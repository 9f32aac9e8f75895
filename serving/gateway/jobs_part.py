"""JobsPart: what a gateway with jobs opens beside inference: database, files, events; the deployment holds it.

The one invariant: everything it opened is closed by :meth:`JobsPart.close`.
"""

from collections.abc import Mapping, Sequence

from fastapi import APIRouter, FastAPI

from serving.artifacts.store import ArtifactStore
from serving.gateway.app import create_app
from serving.gateway.deps import GatewayDeps, MetricsParts
from serving.gateway.hub import EventHub
from serving.jobs.database import Database
from serving.jobs.store import JobStore
from serving.jobs.submit import JobDesk
from serving.jobs.types import JobType
from serving.settings import Settings


class JobsPart:
    """Opened by :meth:`open`.

    Args:
        settings: of the whole mesh, resolved.
        catalog: every job type by name.
    """

    def __init__(self, settings: Settings, catalog: Mapping[str, JobType]) -> None:
        self._settings = settings
        self._catalog = catalog
        self._database = Database(settings.jobs_database_url)

    async def open(self) -> None:
        """Make the tables where there are none."""
        await self._database.create()
        self._store = JobStore(self._database, queued_jobs=self._settings.limits.queued_jobs)
        self._artifacts = ArtifactStore(self._settings.artifacts_url, self._settings.home / "cache")
        self._hub = EventHub(self._store)

    def app(self, routers: Sequence[APIRouter], metrics_parts: MetricsParts) -> FastAPI:
        """The application with jobs, artifacts and pages; arguments as in :class:`GatewayDeps`."""
        desk = JobDesk(self._store, self._catalog, self._artifacts)
        return create_app(
            GatewayDeps(
                settings=self._settings,
                catalog=self._catalog,
                store=self._store,
                desk=desk,
                artifacts=self._artifacts,
                hub=self._hub,
                routers=routers,
                metrics_parts=metrics_parts,
            )
        )

    async def check(self) -> None:
        """Raise once the database no longer answers."""
        await self._store.last_events([])

    async def end_watches(self) -> None:
        """End the streams of events, which would keep the server from stopping."""
        await self._hub.close()

    async def close(self) -> None:
        """Close the database, once no request is left."""
        await self._database.close()
