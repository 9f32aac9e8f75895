"""EngineReplica: one Ray Serve replica that holds the engines of a replica group; deployed by graphs.app.

The one invariant: a failed request never takes the replica down; only a failed load makes it unhealthy.
"""

import asyncio
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import structlog

from serving import telemetry
from serving.artifacts.store import ArtifactStore
from serving.backends.address import own_host
from serving.backends.base import Engine, EngineContext
from serving.backends.call import Call
from serving.backends.heart import Heart
from serving.backends.limits import check_limits
from serving.backends.places import Places, counted
from serving.backends.ray.engines import load_engine
from serving.backends.ray.oip_plane import OipPlane
from serving.backends.ray.oip_server import OipServer
from serving.backends.ray.served import function_models
from serving.errors import NotFound, foreign_text
from serving.protocol.endpoint import Endpoint, Heartbeat
from serving.protocol.oip import InferRequest, InferResponse
from serving.protocol.task_tensors import from_tensors, to_tensors
from serving.protocol.tasks import TASKS, TaskRequest, TaskResult
from serving.repository.model import Model
from serving.repository.served import load_served
from serving.settings import Settings

log = structlog.get_logger()


class EngineReplica:
    """Serves typed tasks by handle and OIP by ports of its own.

    Args:
        settings: of the whole mesh, resolved.
        group: the replica group, which is also the deployment's name.
        edge: Serve handle of the edge, which is told where this replica listens.
    """

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits async constructors
        self,
        settings: Settings,
        group: str,
        edge: Any,  # noqa: ANN401  a Serve handle
    ) -> None:
        telemetry.set_up_logs(settings)
        self._artifacts = ArtifactStore(settings.artifacts_url, settings.home / "cache")
        repository = await asyncio.to_thread(load_served, settings)
        self._models: Mapping[str, Model] = {model.name: model for model in repository.groups()[group]}
        self._engines: dict[str, Engine] = {}
        self._places = Places(settings.limits.inflight_per_replica)
        self._scratch = await asyncio.to_thread(own_scratch, settings.home / "scratch", group)
        context = EngineContext(artifacts=self._artifacts, scratch=self._scratch)
        for model in self._models.values():
            await self._load(model, context)
        configs = {name: model.config for name, model in self._models.items()}
        host = own_host(settings)
        places = settings.limits.inflight_per_replica
        self._plane = OipPlane(function_models(self.infer, configs, places))
        self._oip = OipServer(self._plane, settings.limits, host=host)
        self._heart = Heart(edge, await self._listen(group, host), settings.edge.heartbeat_s)
        self._heart.start()
        # Serve awaits the instance's __del__ when it drains a replica; Python itself only looks at the class.
        self.__del__ = self.close

    async def _load(self, model: Model, context: EngineContext) -> None:
        began = time.monotonic()
        self._engines[model.name] = await asyncio.to_thread(load_engine, model, context)
        seconds = time.monotonic() - began
        telemetry.MODEL_LOAD_SECONDS.labels(model.name, "ray").set(seconds)
        telemetry.MODEL_READY.labels(model.name, "ray").set(1)
        log.info("model_loaded", model=model.name, engine=model.card.engine, seconds=round(seconds, 3))

    async def _listen(self, group: str, host: str) -> Heartbeat:
        http_port, grpc_port = await self._oip.start()
        return Heartbeat(
            replica_id=f"{group}-{host}:{http_port}",
            endpoints=[
                Endpoint(model=name, http=f"{host}:{http_port}", grpc=f"{host}:{grpc_port}") for name in self._models
            ],
            metrics_url=f"http://{host}:{http_port}/metrics",
        )

    async def run(self, model: str, request: TaskRequest, call: Call) -> TaskResult:
        """Run one typed request.

        Raises:
            NotFound: the group does not hold the model.
            Unavailable: the replica already holds as many requests as it may.
            ReelmeshError: whatever the engine raises; foreign errors become :class:`EngineFailed`.
        """
        if model not in self._engines:
            raise NotFound(f"this replica does not hold the model {model!r}")
        with counted(model, call):
            return await self._run(model, request, call)

    async def _run(self, model: str, request: TaskRequest, call: Call) -> TaskResult:
        check_limits(self._models[model].card, request)
        with self._places.hold(model, call):
            return await self._engines[model].run(request, call)

    async def infer(self, request: InferRequest) -> InferResponse:
        """Answer one OIP request through the typed task (see protocol.task_tensors)."""
        task = TASKS[self._models[request.model_name].card.task]
        typed = await from_tensors(task.request, request.inputs, self._artifacts)
        result = await self._run(request.model_name, typed, Call())
        outputs = await to_tensors(result, self._artifacts, request.wants)
        return InferResponse(model_name=request.model_name, id=request.id, outputs=outputs)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Ongoing requests, for Serve's autoscaler: OIP traffic does not pass Serve's handles."""
        return {"ongoing": float(self._places.taken)}

    async def check_health(self) -> None:
        """Called by Serve; raising would restart the replica."""

    async def close(self) -> None:
        """Drain: leave the rotation first, then stop listening, then free the engines."""
        await self._heart.stop()
        await self._oip.stop()
        closed = await asyncio.gather(*(engine.close() for engine in self._engines.values()), return_exceptions=True)
        for name, error in zip(self._engines, closed, strict=True):
            if isinstance(error, BaseException):
                log.warning("close_failed", model=name, error=foreign_text(error))
        await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)


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
