"""TritonReplica: one Ray Serve replica that holds a tritonserver and its share of the models; deployed by graphs.app.

The one invariant: the edge knows this replica only while its tritonserver serves; clients then reach Triton itself.
"""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import structlog

from serving import telemetry
from serving.artifacts.cache import in_use
from serving.artifacts.store import ArtifactStore
from serving.backends.address import own_host
from serving.backends.call import Call
from serving.backends.control import ControlServer, load_bytes
from serving.backends.control_calls import model_call
from serving.backends.heart import Heart
from serving.backends.limits import check_limits
from serving.backends.meter import Meter, Served
from serving.backends.places import Places, counted
from serving.backends.recall import catch_up, recalled
from serving.backends.repository_watch import RepositoryWatch
from serving.backends.triton.adapters import Adapter, load_adapter
from serving.backends.triton.command import Options, Ports
from serving.backends.triton.control import TritonControl
from serving.backends.triton.install import find_tritonserver
from serving.backends.triton.server import TritonServer
from serving.errors import NotFound, ReelmeshError, Unsupported
from serving.exposition import Exposition, merge_expositions
from serving.protocol.control import ControlCall, ModelState
from serving.protocol.endpoint import Endpoint, Heartbeat
from serving.protocol.tasks import TaskRequest, TaskResult
from serving.repository.licences import Licences, typed_task
from serving.repository.load import Repository
from serving.repository.model import TRITON_GROUP, Model
from serving.repository.served import load_served, requested, steps
from serving.settings import Settings

log = structlog.get_logger()


class TritonReplica:
    """Serves typed tasks by handle, and OIP by the ports of its own tritonserver.

    Args:
        settings: of the whole mesh, resolved.
        models: names of its share of the repository; empty means every model that Triton serves. Where models come
            and go while the mesh runs, every Triton model is in the share.
        edge: Serve handle of the edge, which is told where Triton listens; None for a replica on its own.
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        settings: Settings,
        models: Sequence[str] = (),
        edge: Any = None,  # noqa: ANN401  a Serve handle
    ) -> None:
        telemetry.set_up_logs(settings)
        inference = settings.inference
        # Triton works in a process of its own, for many clients at once: the time it took stands in for its CPU time.
        self._places, self._meter = Places(settings.limits.inflight_per_replica), Meter(time.monotonic)
        self._edge = edge
        self._started = False
        self._heart: Heart | None = None
        self._watch: RepositoryWatch | None = None
        self._models: dict[str, Model] = {}
        self._licences = Licences(self._models, settings.licences)
        self._adapters: dict[str, Adapter | None] = {}
        self.artifacts = ArtifactStore.of(settings)
        self._host = own_host(settings)
        # Serve awaits the instance's __del__ when it drains a replica; Python itself only looks at the class.
        self.__del__ = self.close
        calls = await recalled(edge)
        repository = await asyncio.to_thread(load_served, settings)
        dynamic = inference.model_control_mode != "none"
        names = models if models and not dynamic else requested(repository, inference)
        gpus = self._gpus = leased_gpus()
        self.server = TritonServer(
            find_tritonserver(settings),
            first_models(repository, names, calls),
            settings.home,
            Options(gpus=gpus, host=self._host, exit_timeout_s=inference.exit_timeout_s, completes=dynamic),
            on_change=self._on_change,
        )
        self.control = TritonControl(settings, self.server, self._announce)
        self._port = ControlServer(self.control, self.metrics, load_bytes(settings.limits), self._host)
        if inference.model_control_mode == "poll":
            self._watch = RepositoryWatch(settings.model_repositories, self.control, inference.repository_poll_s)
        await self._start(calls, settings.edge.heartbeat_s)

    async def _start(self, calls: Sequence[ControlCall], heartbeat_s: float) -> None:
        for model in self.server.models.values():
            self._adopt(model)
        await self.server.start()
        for call in calls:
            if (wanted := model_call(call)) is not None and wanted.load:
                await self._repeat_load(wanted.name, wanted.parameters)
        await self.control.repeat(calls)
        await self._port.start()
        await self.control.tell()
        if self._edge is not None:
            self._heart = Heart(self._edge, self._beat, heartbeat_s)
            self._heart.start()
            await self._heart.update(self._beat)
        if self._watch is not None:
            self._watch.start()
        self._started = True
        await catch_up(self._edge, calls, self.control)

    @property
    def metrics_url(self) -> str:
        """Where the replica shows its metrics."""
        return self._port.metrics_url

    async def run(self, model: str, request: TaskRequest, call: Call) -> TaskResult:
        """Run one typed request.

        Raises:
            NotFound: the model is not in this replica's share, or unloaded.
            Unsupported: the model has no typed task; it is reached by OIP.
            BadInput: the request is over the model's limits.
            LicenceForbids: the model's licence, or that of an ensemble's step, does not allow the call's use.
            Unavailable: Triton is restarting, or the replica holds as many requests as it may.
            ReelmeshError: whatever the adapter raises; foreign errors become :class:`EngineFailed`.
        """
        if model not in self._adapters:
            raise NotFound(f"this replica does not hold the model {model!r}")
        adapter = self._adapters[model]
        if adapter is None:
            raise Unsupported(f"the model {model!r} has no typed task", fix="reach it by OIP inference")
        self._licences.check(self._models[model], call.use)
        with counted(model, call), self._places.hold(model, call), in_use():
            check_limits(self._models[model].card, request)
            return await adapter.run(request, call)

    async def serve(self, model: str, request: TaskRequest, call: Call) -> Served:
        """As :meth:`run`, with what it cost: the time it took, shared evenly by the requests that ran beside it."""
        known = self._models.get(model)
        share = known.card.share.gpu if known and self._gpus else 0.0
        replica = f"triton-{self._port.control.address}"
        return await self._meter.served(model, self.run(model, request, call), gpu_share=share, replica=replica)

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

    async def close(self) -> None:
        """Leave the rotation, then drain and end tritonserver."""
        if self._heart is not None:
            await self._heart.stop()
        if self._watch is not None:
            await self._watch.stop()
        if port := getattr(self, "_port", None):
            await port.stop()
            await self.control.close()
            await self.server.stop()

    async def _repeat_load(self, name: str, parameters: Mapping[str, Any]) -> None:
        try:
            await self.control.reload(name, parameters)
        except NotFound:
            return  # another kind of replica's
        except ReelmeshError as error:
            log.error("triton_model_not_loaded", model=name, error=str(error))

    async def _on_change(self, ports: Ports | None) -> None:
        """Triton died, or runs again and must be told again what it does not keep on disk."""
        if not self._started:
            return  # _start() goes on with it
        if ports is not None:
            await self.control.repeat(await recalled(self._edge))
        await self.control.tell()

    async def _announce(self, states: Sequence[ModelState], ready: Collection[str]) -> None:
        for name in self._models.keys() - self.server.models.keys():
            del self._models[name], self._adapters[name]
            telemetry.MODEL_READY.labels(name, TRITON_GROUP).set(0)
        for name, model in self.server.models.items():
            self._adopt(model)
            telemetry.MODEL_READY.labels(name, TRITON_GROUP).set(1 if name in ready else 0)
        self._beat = self._heartbeat(states, ready)
        if self._heart is not None:
            await self._heart.update(self._beat)

    def _adopt(self, model: Model) -> None:
        if self._models.get(model.name) is not model:
            self._adapters[model.name] = load_adapter(model, self.server, self.artifacts)
            self._models[model.name] = model

    def _heartbeat(self, states: Sequence[ModelState], ready: Collection[str]) -> Heartbeat:
        ports, sockets = self.server.ports, self.server.sockets
        endpoints = [] if ports is None else [
            Endpoint(
                model=name,
                http=f"{self._host}:{ports.http}",
                grpc=f"{self._host}:{ports.grpc}",
                http_socket=sockets and sockets.http,
                grpc_socket=sockets and sockets.grpc,
                straight=not is_stateful(name, self.server.models),
                task=typed_task(self._models[name]) if name in self._models else "",
                refuses=self._licences.reason(self._models[name]) if name in self._models else "",
            )
            for name in sorted(ready)
        ]  # fmt: skip
        return Heartbeat(
            replica_id=f"triton-{self._port.control.address}",
            kind="triton",
            endpoints=endpoints,
            models=list(states),
            control=self._port.control,
            metrics_url=self._port.metrics_url,
        )


def first_models(repository: Repository, names: Sequence[str], calls: Sequence[ControlCall]) -> list[Model]:
    """The models a replica starts with: those of its share that no remembered call loads anew or unloads.

    Raises:
        NotFound: there is no such model.
    """
    others: set[str] = set()
    for call in calls:
        if (wanted := model_call(call)) is not None:
            others.add(wanted.name)
            if wanted.parameters.get("unload_dependents") is True and wanted.name in repository.models:
                others |= set(steps(repository.models[wanted.name]))
    models = [repository.get(name) for name in names if name not in others]
    return [model for model in models if model.replica_group == TRITON_GROUP]


def is_stateful(name: str, models: Mapping[str, Model]) -> bool:
    """Whether a model's requests belong together in sequences, its own or those of an ensemble's step."""
    todo, seen = [name], set[str]()
    while todo:
        each = todo.pop()
        if each in seen or each not in models:
            continue
        seen.add(each)
        if models[each].config.HasField("sequence_batching"):
            return True
        todo += steps(models[each])
    return False


def leased_gpus() -> int:
    """How many GPUs Ray leased to this process; 0 outside Ray."""
    import ray

    return len(ray.get_gpu_ids()) if ray.is_initialized() else 0
