"""JobsPart: what a gateway with jobs opens beside inference: database, files, events; the deployment holds it.

The one invariant: everything it opened is closed by :meth:`JobsPart.close`.
"""

from collections.abc import Mapping, Sequence

from fastapi import APIRouter, FastAPI

from serving.artifacts.store import ArtifactStore
from serving.gateway.app import create_app
from serving.gateway.deliveries import deliveries_router
from serving.gateway.deps import GatewayDeps, MetricsParts
from serving.gateway.hub import EventHub
from serving.jobs.database import Database
from serving.jobs.intake.group import IntakeGroup
from serving.jobs.keeper import Keeper
from serving.jobs.store import JobStore
from serving.jobs.submit import JobDesk, Permit
from serving.jobs.types import JobType
from serving.jobs.webhooks.check import WebhookCheck
from serving.jobs.webhooks.deliveries import Deliveries
from serving.jobs.webhooks.secrets import Secrets
from serving.jobs.webhooks.sender import WebhookSender
from serving.settings import Settings


class JobsPart:
    """Opened by :meth:`open`.

    Args:
        settings: of the whole mesh, resolved.
        catalog: every job type by name.
        permit: knows the models' licences; None leaves them to the stages.
    """

    def __init__(self, settings: Settings, catalog: Mapping[str, JobType], permit: Permit | None = None) -> None:
        self._permit = permit
        self._settings = settings
        self._catalog = catalog
        self._database = Database(settings.jobs_database_url)

    async def open(self) -> None:
        """Make the tables where there are none."""
        await self._database.create()
        self._store = JobStore(
            self._database,
            queued_jobs=self._settings.limits.queued_jobs,
            concurrent_jobs=self._settings.worker.concurrent_jobs,
        )
        self._artifacts = ArtifactStore.of(self._settings)
        self._hub = EventHub(self._store)
        self._secrets = Secrets(self._settings.webhooks.secrets_file)
        await self._secrets.open()
        check = WebhookCheck(self._settings.webhooks, self._secrets)
        self._desk = JobDesk(self._store, self._catalog, self._artifacts, check, self._permit)
        self._intakes = IntakeGroup(
            self._settings.intakes,
            self._desk,
            self._store,
            self._database,
            most_bytes=self._settings.limits.spec_bytes,
        )
        self._sender = WebhookSender(self._database, self._settings.webhooks, self._secrets)
        self._sender.start()
        self._keeper = Keeper(self._database, self._artifacts, self._settings.retention)
        self._keeper.start()
        self._intakes.start()

    def app(self, routers: Sequence[APIRouter], metrics_parts: MetricsParts) -> FastAPI:
        """The application with jobs, artifacts and pages; arguments as in :class:`GatewayDeps`."""
        return create_app(
            GatewayDeps(
                settings=self._settings,
                catalog=self._catalog,
                store=self._store,
                desk=self._desk,
                artifacts=self._artifacts,
                hub=self._hub,
                routers=[*routers, deliveries_router(Deliveries(self._database))],
                metrics_parts=metrics_parts,
            )
        )

    async def check(self) -> None:
        """Raise once the database no longer answers, or an intake has ended."""
        self._intakes.check()
        await self._store.last_events([])

    async def end_watches(self) -> None:
        """End the streams of events, which would keep the server from stopping."""
        await self._hub.close()

    async def close(self) -> None:
        """Close the database, once no request is left."""
        await self._intakes.stop()
        await self._keeper.close()
        await self._sender.close()
        await self._database.close()
