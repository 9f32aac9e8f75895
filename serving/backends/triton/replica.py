"""TritonReplica: one Ray Serve replica that holds a tritonserver and its share of the models; deployed by graphs.app.

The one invariant: the edge knows this replica only while its tritonserver serves; clients then reach Triton itself.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from serving import telemetry
from serving.artifacts.store import ArtifactStore
from serving.backends.address import own_host
from serving.backends.call import Call
from serving.backends.heart import Heart
from serving.backends.limits import check_limits
from serving.backends.places import Places, counted
from serving.backends.triton.adapters import Adapter, load_adapter
from serving.backends.triton.install import find_tritonserver
from serving.backends.triton.metrics import MetricsServer
from serving.backends.triton.process import Ports
from serving.backends.triton.server import TritonServer
from serving.errors import NotFound, Unsupported
from serving.exposition import Exposition, merge_expositions
from serving.protocol.endpoint import Endpoint, Heartbeat
from serving.protocol.tasks import TaskRequest, TaskResult
from serving.repository.served import load_served
from serving.settings import Settings


class TritonReplica:
    """Serves typed tasks by handle, and OIP by the ports of its own tritonserver.

    Args:
        settings: of the whole mesh, resolved.
        models: names of its share of the repository; empty means every model that Triton serves.
        edge: Serve handle of the edge, which is told where Triton listens; None for a replica on its own.
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        settings: Settings,
        models: Sequence[str] = (),
        edge: Any = None,  # noqa: ANN401  a Serve handle
    ) -> None:
        telemetry.set_up_logs(settings)
        self._places = Places(settings.limits.inflight_per_replica)
        self._heart: Heart | None = None
        repository = await asyncio.to_thread(load_served, settings)
        share = [repository.get(name) for name in models] if models else repository.triton()
        install = find_tritonserver(settings)
        self.artifacts = ArtifactStore(settings.artifacts_url, settings.home / "cache")
        self._host = own_host(settings)
        self.server = TritonServer(
            install, share, settings.home, gpus=leased_gpus(), host=self._host, on_change=self._tell_edge
        )
        self._cards = {model.name: model.card for model in share}
        self._adapters: dict[str, Adapter | None] = {
            model.name: load_adapter(model, self.server, self.artifacts) for model in share
        }
        # Serve awaits the instance's __del__ when it drains a replica; Python itself only looks at the class.
        self.__del__ = self.close
        await self.server.start()
        self._metrics = MetricsServer(self.metrics, self._host)
        self.metrics_url = await self._metrics.start()
        if edge is not None:
            self._heart = Heart(edge, self._beat(self.server.ports), settings.edge.heartbeat_s)
            self._heart.start()

    async def run(self, model: str, request: TaskRequest, call: Call) -> TaskResult:
        """Run one typed request.

        Raises:
            NotFound: the model is not in this replica's share.
            Unsupported: the model has no typed task; it is reached by OIP.
            BadInput: the request is over the model's limits.
            Unavailable: Triton is restarting, or the replica holds as many requests as it may.
            ReelmeshError: whatever the adapter raises; foreign errors become :class:`EngineFailed`.
        """
        if model not in self._adapters:
            raise NotFound(f"this replica does not hold the model {model!r}")
        adapter = self._adapters[model]
        if adapter is None:
            raise Unsupported(f"the model {model!r} has no typed task", fix="reach it by OIP inference")
        with counted(model, call), self._places.hold(model, call):
            check_limits(self._cards[model], request)
            return await adapter.run(request, call)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """For Serve's autoscaler: typed requests at hand, and what waits in Triton's queues whoever sent it."""
        return {"ongoing": float(self._places.taken), "queued": float(await self.server.pending())}

    async def check_health(self) -> None:
        """Called by Serve; raises once tritonserver cannot be kept up, so that the replica is replaced."""
        self.server.check()

    async def metrics(self) -> str:
        """Triton's metrics and this process's, as one Prometheus text."""
        parts = [Exposition(telemetry.exposition(), {}), Exposition(await self.server.metrics(), {})]
        return merge_expositions(parts)

    async def _tell_edge(self, ports: Ports | None) -> None:
        for model in self._adapters:
            telemetry.MODEL_READY.labels(model, "triton").set(0 if ports is None else 1)
        if self._heart is not None:
            await self._heart.update(self._beat(ports))

    def _beat(self, ports: Ports | None) -> Heartbeat:
        endpoints = [] if ports is None else [
            Endpoint(model=name, http=f"{self._host}:{ports.http}", grpc=f"{self._host}:{ports.grpc}")
            for name in self._adapters
        ]  # fmt: skip
        return Heartbeat(
            replica_id=f"triton-{self.metrics_url.split('/')[2]}",
            endpoints=endpoints,
            metrics_url=self.metrics_url,
        )

    async def close(self) -> None:
        """Leave the rotation, then drain and end tritonserver."""
        if self._heart is not None:
            await self._heart.stop()
        if metrics := getattr(self, "_metrics", None):
            await metrics.stop()
        await self.server.stop()


def leased_gpus() -> int:
    """How many GPUs Ray leased to this process; 0 outside Ray."""
    import ray

    return len(ray.get_gpu_ids()) if ray.is_initialized() else 0
