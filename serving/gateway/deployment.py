"""GatewayDeployment: the Ray Serve deployment of the gateway: HTTP pages and APIs, and OIP's control plane by gRPC.

The one invariant: it tells the edge of itself only once it answers, and leaves the rotation before it stops answering.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import grpc
import structlog

from serving import telemetry
from serving.backends.address import own_host
from serving.backends.heart import Heart
from serving.backends.http_server import DRAIN_S, HttpServer
from serving.backends.ray.oip_server import grpc_options
from serving.gateway.edge_client import ASK_S, EdgeClient
from serving.gateway.inference_app import create_inference_app
from serving.gateway.jobs_part import JobsPart
from serving.gateway.oip_grpc import oip_handler
from serving.gateway.oip_grpc_channels import Channels
from serving.gateway.oip_health import add_health
from serving.gateway.oip_http import oip_router
from serving.gateway.oip_parts import mesh_plane
from serving.jobs.types import JobType
from serving.protocol.endpoint import ANY_MODEL, Endpoint, Heartbeat
from serving.repository.served import load_served, requested
from serving.router import Router
from serving.settings import Settings
from serving.telemetry import Exposition

log = structlog.get_logger()

_CALLS: Final = 4096
"""gRPC calls held at a time, streams among them; more get RESOURCE_EXHAUSTED."""


class GatewayDeployment:
    """Serves everything that is not inference on a known model.

    Args:
        settings: of the whole mesh, resolved.
        catalog: every job type by name; empty without jobs.
        edge: Serve handle of the edge.
        worker: Serve handle of the job worker, asked for its metrics; None leaves them out.
        jobs: whether jobs, artifacts and pages are served; False opens neither database nor artifact store.
    """

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits async constructors
        self,
        settings: Settings,
        catalog: Mapping[str, JobType],
        edge: Any,  # noqa: ANN401  a Serve handle
        worker: Any = None,  # noqa: ANN401  a Serve handle
        jobs: bool = True,
    ) -> None:
        telemetry.set_up_logs(settings)
        self._host = own_host(settings)
        self._edge = edge
        self._worker = worker
        repository = await asyncio.to_thread(load_served, settings)
        # A router without backends: it is only asked which models may be used for what.
        self._jobs = JobsPart(settings, catalog, Router(repository, (), settings.licences)) if jobs else None
        if self._jobs is not None:
            await self._jobs.open()
        known = [*repository.models, *repository.broken]
        wanted = requested(repository, settings.inference)
        self._plane = mesh_plane(EdgeClient(edge), settings, self._host, wanted, known)
        routers = [oip_router(self._plane)]
        app = (
            create_inference_app(routers, self._metrics)
            if self._jobs is None
            else self._jobs.app(routers, self._metrics)
        )
        self._http = HttpServer(app, self._host)
        await self._http.start()
        grpc_port = await self._start_grpc(settings)
        self._heart = Heart(edge, self._beat(grpc_port), settings.edge.heartbeat_s)
        self._heart.start()
        log.info("gateway_listening", http=self._http.port, grpc=grpc_port, job_types=sorted(catalog))
        # Serve awaits the instance's __del__ when it drains a replica; Python itself only looks at the class.
        self.__del__ = self.close

    async def _start_grpc(self, settings: Settings) -> int:
        self._channels = Channels(self._plane.mesh, settings.limits)
        options = grpc_options(settings.limits.infer_bytes)
        self._grpc = grpc.aio.server(options=options, maximum_concurrent_rpcs=_CALLS)
        self._grpc.add_generic_rpc_handlers((oip_handler(self._plane, self._channels),))
        add_health(self._grpc, self._plane.mesh)
        port: int = self._grpc.add_insecure_port(f"{self._host}:0")
        await self._grpc.start()
        return port

    def _beat(self, grpc_port: int) -> Heartbeat:
        http = f"{self._host}:{self._http.port}"
        return Heartbeat(
            replica_id=f"gateway-{http}",
            kind="gateway",
            endpoints=[Endpoint(model=ANY_MODEL, http=http, grpc=f"{self._host}:{grpc_port}")],
            metrics_url=f"http://{http}/metrics/own",
        )

    async def check_health(self) -> None:
        """Called by Serve; raises once a server has ended or the jobs database no longer answers."""
        self._http.check()
        if self._jobs is not None:
            await self._jobs.check()

    async def close(self) -> None:
        """Leave the rotation, let requests in flight finish, close everything; awaited by Serve."""
        await self._heart.stop()
        if self._jobs is not None:
            await self._jobs.end_watches()
        await asyncio.gather(self._http.stop(), self._grpc.stop(DRAIN_S))
        await self._channels.close()
        await self._plane.close()
        if self._jobs is not None:
            await self._jobs.close()

    async def _metrics(self) -> Sequence[Exposition]:
        """What the edge collected, and every worker's; a part that does not answer is left out."""
        asked = [asyncio.wait_for(self._edge.metrics.remote(), ASK_S), *([self._of_workers()] if self._worker else [])]
        edge, *workers = await asyncio.gather(*asked, return_exceptions=True)
        parts = list(edge) if isinstance(edge, list) else [Exposition(telemetry.exposition(), {"part": "gateway"})]
        return parts + [part for found in workers if isinstance(found, list) for part in found]

    async def _of_workers(self) -> list[Exposition]:
        """A worker listens on no port, and a call by its handle reaches one of them: each must be asked."""
        answers = self._worker.broadcast("metrics").results_async(timeout_s=ASK_S, return_exceptions=True)
        answered = [answer for answer in await answers if isinstance(answer, tuple)]
        return [Exposition(text, {"part": f"worker-{worker}"}) for worker, text in answered]
