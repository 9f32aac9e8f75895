"""EngineReplica: one Ray Serve replica that holds the models of a replica group; deployed by graphs.app.

The one invariant: a failed request never takes the replica down; only a failed load makes it unhealthy.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import psutil
import structlog

from serving import telemetry
from serving.artifacts.cache import in_use
from serving.artifacts.store import ArtifactStore
from serving.backends.address import own_host
from serving.backends.base import EngineContext
from serving.backends.call import Call
from serving.backends.control import ControlServer, load_bytes
from serving.backends.control_calls import model_call
from serving.backends.heart import Heart
from serving.backends.limits import check_limits
from serving.backends.meter import Meter, Served
from serving.backends.places import Places, counted
from serving.backends.ray.control import RayControl
from serving.backends.ray.control_models import ModelSet
from serving.backends.ray.oip_plane import OipPlane
from serving.backends.ray.oip_server import OipServer
from serving.backends.ray.telling import told
from serving.backends.ray.traces import Traces
from serving.backends.ray.triton_finder import TritonFinder
from serving.backends.recall import catch_up, recalled
from serving.backends.repository_watch import RepositoryWatch
from serving.errors import foreign_text
from serving.protocol.endpoint import Endpoint, Heartbeat
from serving.protocol.oip import InferRequest, InferResponse
from serving.protocol.oip_statistics import Times
from serving.protocol.shared_memory import Regions
from serving.protocol.task_tensors import from_tensors, to_tensors
from serving.protocol.tasks import TASKS, TaskRequest, TaskResult, adapter_of
from serving.settings import Settings
from serving.weights.cache import WeightsCache

log = structlog.get_logger()

_NS = 1_000_000_000


class EngineReplica:
    """Serves typed tasks by handle and OIP by ports of its own.

    Args:
        settings: of the whole mesh, resolved.
        group: the replica group, which is also the deployment's name.
        edge: Serve handle of the edge, which is told where this replica listens; None for a replica on its own.
    """

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits async constructors
        self,
        settings: Settings,
        group: str,
        edge: Any = None,  # noqa: ANN401  a Serve handle
    ) -> None:
        telemetry.set_up_logs(settings)
        self._settings, self._group, self._edge = settings, group, edge
        self._host = own_host(settings)
        self._heart: Heart | None = None
        self._artifacts = ArtifactStore.of(settings)
        self._places, self._meter = Places(settings.limits.inflight_per_replica), Meter()
        self._scratch = await asyncio.to_thread(own_scratch, settings.home / "scratch", group)
        self._traces = Traces(settings.home / "traces" / f"{self._scratch.name}.json")
        self._regions = Regions(settings.limits.infer_bytes)
        self._plane = OipPlane(
            regions=self._regions, observe=self._observe, queue_size=settings.limits.queued_per_model
        )
        context = self._context()
        self._on_gpu = context.device != "cpu"
        self._models = ModelSet(settings, group, self._plane, context, self.infer, self._tell_edge)
        self._control = RayControl(settings, self._models, self._regions, self._traces)
        self._oip = OipServer(
            self._plane, settings.limits, host=self._host, drain_s=ceil(settings.inference.exit_timeout_s)
        )
        # Serve awaits the instance's __del__ when it drains a replica; Python itself only looks at the class.
        self.__del__ = self.close
        await self._start()

    def _context(self) -> EngineContext:
        engines = self._settings.engines
        return EngineContext(
            artifacts=self._artifacts,
            scratch=self._scratch,
            threads=engines.threads,
            device="cpu" if engines.device == "cpu" else device(),
            gpu_share=leased_gpus(),
            precision=None if engines.precision == "model" else engines.precision,
            ask=self._ask,
            weights=WeightsCache.of(self._settings),
            triton=self._triton(),
        )

    def _triton(self) -> TritonFinder | None:
        if self._edge is None or self._settings.inference.triton == "off":
            return None
        return TritonFinder(self._edge, asyncio.get_running_loop())

    async def _start(self) -> None:
        """Become what replicas that started earlier are, then tell the edge."""
        settings, inference = self._settings, self._settings.inference
        self._watch = RepositoryWatch(settings.model_repositories, self._models, inference.repository_poll_s)
        calls = await recalled(self._edge)
        await self._control.repeat(calls)
        await self._models.start([found for call in calls if (found := model_call(call)) is not None])
        self._ports = await self._oip.start()
        self._server = ControlServer(self._control, _exposition, load_bytes(settings.limits), self._host)
        await self._server.start()
        if inference.model_control_mode == "poll":
            self._watch.start()
        if self._edge is not None:
            self._heart = Heart(self._edge, self.beat(), settings.edge.heartbeat_s)
            self._heart.start()
            await self._heart.update(self.beat())
            await catch_up(self._edge, calls, self._control)

    async def run(self, model: str, request: TaskRequest, call: Call) -> TaskResult:
        """Run one typed request.

        Raises:
            NotFound: the group does not hold the model.
            Unsupported: the model has no typed task; it is reached by OIP.
            LicenceForbids: the model's licence does not allow the call's use.
            Unavailable: the replica already holds as many requests as it may.
            ReelmeshError: whatever the engine raises; foreign errors become :class:`EngineFailed`.
        """
        known, engine = self._models.typed(model)
        self._models.licences.check(known, call.use, adapter_of(request))
        with counted(model, call), self._places.hold(model, call), in_use():
            check_limits(known.card, request)
            return await engine.run(request, call)

    async def serve(self, model: str, request: TaskRequest, call: Call) -> Served:
        """As :meth:`run`, with what it cost: CPU seconds of this process and of children that ended meanwhile."""
        share = self._models.typed(model)[0].card.share.gpu if self._on_gpu else 0.0
        replica = f"{self._group}-{self._host}:{self._ports[0]}"
        return await self._meter.served(model, self.run(model, request, call), gpu_share=share, replica=replica)

    async def serve_told(self, model: str, request: TaskRequest, call: Call) -> AsyncIterator[float | Served]:
        """As :meth:`serve`, with how much is done (0 to 1) whenever that has moved; the answer comes last."""
        async with contextlib.aclosing(told(call, partial(self.serve, model, request, call))) as news:
            async for piece in news:
                yield piece

    async def infer(self, request: InferRequest) -> InferResponse:
        """Answer one OIP request through the typed task (see protocol.task_tensors).

        The place is taken before anything of the request is stored, and the request's deadline is the call's.
        """
        name = request.model_name
        (model, engine) = self._models.typed(name)
        call = Call(deadline_unix_s=request.deadline_unix_s, use=request.use)
        with self._places.hold(name, call), in_use():
            typed = await from_tensors(TASKS[model.card.task].request, request.inputs, self._artifacts)
            check_limits(model.card, typed)
            self._models.licences.check(model, call.use, adapter_of(typed))
            result = await engine.run(typed, call)
            outputs = await to_tensors(result, self._artifacts, request.wants)
        return InferResponse(model_name=name, id=request.id, outputs=outputs)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Ongoing requests, for Serve's autoscaler: OIP traffic does not pass Serve's handles."""
        return {"ongoing": float(max(self._places.taken, self._plane.in_flight))}

    async def check_health(self) -> None:
        """Called by Serve; raises once a server has ended, and Serve then replaces the replica."""
        self._oip.check()
        self._server.check()

    def beat(self) -> Heartbeat:
        """What this replica tells the edge of itself."""
        http, grpc = (f"{self._host}:{port}" for port in self._ports)
        endpoints = [
            Endpoint(
                model=name, http=http, grpc=grpc, straight=not self._in_sequences(name), **self._models.terms(name)
            )
            for name in self._models.serving()
        ]
        return Heartbeat(
            replica_id=f"{self._group}-{http}",
            kind="ray",
            endpoints=endpoints,
            models=self._models.states(),
            control=self._server.control,
            metrics_url=self._server.metrics_url,
        )

    async def close(self) -> None:
        """Drain: leave the rotation first, then stop listening, then free the engines."""
        if self._heart is not None:
            await self._heart.stop()
        await self._watch.stop()
        if server := getattr(self, "_server", None):
            await server.stop()
        await self._oip.stop()
        try:
            await self._plane.close(self._settings.inference.exit_timeout_s)
        except Exception as error:  # an engine may raise anything; the others are closed all the same
            log.warning("close_failed", group=self._group, error=foreign_text(error))
        self._regions.unregister()
        await asyncio.to_thread(self._traces.flush)
        await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)

    async def _tell_edge(self) -> None:
        if self._heart is not None:
            await self._heart.update(self.beat())

    def _in_sequences(self, model: str) -> bool:
        return bool(self._plane.find(model)[0].HasField("sequence_batching"))

    def _ask(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """A model's request to another model of this replica."""
        return self._plane.stream(request, "grpc")

    def _observe(self, request: InferRequest, started_s: float, times: Times) -> None:
        if self._traces.record(request, round(started_s * _NS), times):
            asyncio.get_running_loop().run_in_executor(None, self._traces.flush)


def device() -> str:
    """Where engines run: the GPU that Ray leased to this process, else the CPU."""
    import ray

    # Ray shows a replica only the GPUs it leased, numbered from 0.
    return "cuda:0" if ray.is_initialized() and ray.get_gpu_ids() else "cpu"


def leased_gpus() -> float:
    """How much of GPUs Ray leased to this process."""
    import ray

    return float(ray.get_runtime_context().get_assigned_resources().get("GPU", 0.0)) if ray.is_initialized() else 0.0


async def _exposition() -> str:
    return telemetry.exposition()


def own_scratch(parent: Path, group: str) -> Path:
    """A fresh folder ``<group>-<process id>``; those of processes that are gone (killed replicas) are removed."""
    for left in parent.glob("*-*"):
        pid = left.name.rpartition("-")[2]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    scratch = parent / f"{group}-{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    return scratch
