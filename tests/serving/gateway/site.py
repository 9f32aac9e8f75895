"""A gateway on a real port with the job system behind it, for tests of the gateway and of the command line."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from serving.backends.http_server import HttpServer
from serving.gateway.app import create_app
from serving.gateway.deliveries import deliveries_router
from serving.gateway.deps import GatewayDeps
from serving.gateway.hub import EventHub
from serving.jobs.webhooks.deliveries import Deliveries
from serving.jobs.worker import JobWorker
from tests.serving.jobs.film import CATALOG, CountingRouter
from tests.serving.jobs.office import Office, open_office


@dataclass
class Site:
    url: str
    http: httpx.AsyncClient
    office: Office
    hub: EventHub


@asynccontextmanager
async def open_site(home: Path, **settings: str) -> AsyncIterator[Site]:
    limits = {"queued_jobs": 20, "upload_bytes": 1 << 20, "spec_bytes": 4096, "jobs_listed": 5}
    async with open_office(home, limits=limits, **settings) as office:
        hub = EventHub(office.store, heartbeat_s=0.3)
        routers = [deliveries_router(Deliveries(office.database))]
        deps = GatewayDeps(office.settings, CATALOG, office.store, office.desk, office.artifacts, hub, routers)
        server = HttpServer(create_app(deps))
        await server.start()
        url = f"http://127.0.0.1:{server.port}"
        async with httpx.AsyncClient(base_url=url, timeout=20, trust_env=False) as http:
            yield Site(url, http, office, hub)
        await hub.close()
        await server.stop()


@asynccontextmanager
async def open_worker(office: Office) -> AsyncIterator[JobWorker]:
    router = CountingRouter(office.artifacts, office.settings.home / "calls.log")
    running = await JobWorker.start(office.settings, CATALOG, router)
    yield running
    await running.shutdown()
