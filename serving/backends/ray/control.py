"""RayControl: what a Ray replica can be asked by the control plane; held by EngineReplica, called by its ControlServer.

The one invariant: a change of settings or regions takes effect whole or not at all, and every error says in Triton's
words what was wrong.
"""

import asyncio
from collections.abc import Sequence

import structlog
from pydantic import JsonValue

from serving.backends.control import Json, RegionKind, check_mode
from serving.backends.control_calls import ModelCall, let_go_call, model_call, region_call, sets_logs, trace_call
from serving.backends.ray import control_logs as logs
from serving.backends.ray.control_models import ModelSet
from serving.backends.ray.traces import Traces
from serving.errors import BadInput, NotFound, ReelmeshError, Unsupported
from serving.protocol.control import ControlCall, ModelState
from serving.protocol.shared_memory import Regions
from serving.settings import Settings

log = structlog.get_logger()


class RayControl:
    """A :class:`ReplicaControl`.

    Args:
        settings: of the mesh.
        models: the replica's.
        regions: its shared memory.
        traces: its timelines.
    """

    def __init__(self, settings: Settings, models: ModelSet, regions: Regions, traces: Traces) -> None:
        self._inference = settings.inference
        self._models = models
        self._regions = regions
        self._traces = traces
        self._logs = logs.initial(settings.log.level)
        self._silencer = logs.Silencer()

    async def repeat(self, calls: Sequence[ControlCall]) -> None:
        """Do again what was asked of all replicas before this one started, models apart; failures are logged."""
        for call in calls:
            if model_call(call) is not None:
                continue
            try:
                await self._repeat(call)
            except ReelmeshError as error:
                log.warning("call_not_repeated", key=call.key, error=str(error))

    async def repeat_model(self, call: ModelCall) -> None:
        """Load or unload a model, whatever the control mode is."""
        if call.load:
            await self._models.reload(call.name, call.parameters)
        else:
            await self._models.remove(call.name)

    async def index(self) -> list[ModelState]:
        """Every model of the group."""
        return await self._models.index()

    async def load(self, name: str, parameters: Json) -> None:
        """Load or reload a model; returns once the edge knows its endpoint."""
        check_mode(self._inference)
        await self._models.reload(name, parameters)

    async def unload(self, name: str, *, dependents: bool) -> None:
        """Take a model out of rotation, then unload it; a Ray replica has no ensembles, so nothing depends."""
        check_mode(self._inference)
        await self._models.remove(name)

    async def log_settings(self, changes: Json) -> dict[str, JsonValue]:
        """Apply changes to this process's log, which may be none."""
        if changes:
            self._logs = logs.changed(self._logs, changes)
            self._silencer.silent = logs.silenced(self._logs)
            self._silencer.install()
        return dict(self._logs)

    async def trace_settings(self, model: str, changes: Json) -> dict[str, JsonValue]:
        """Apply changes, which may be none, to one model or (empty name) all."""
        if model and model not in self._models.serving():
            raise NotFound(f"Request for unknown model : {model[:128]}", field="model")
        if changes:
            await asyncio.to_thread(self._traces.flush)
            self._traces.change(self._traces.settings.changed(model, changes))
        return self._traces.settings.of(model)

    async def register_region(self, kind: RegionKind, name: str, body: Json) -> None:
        """Map a region of system shared memory."""
        if kind == "cuda":
            raise Unsupported(f"failed to register CUDA shared memory region: '{name[:128]}', GPUs not supported")
        key = body.get("key")
        if not isinstance(key, str):
            raise BadInput("must be a string", field="key")
        offset, byte_size = (_whole(body, field, default) for field, default in (("offset", 0), ("byte_size", None)))
        self._regions.register(name, key, offset, byte_size)

    async def unregister_region(self, kind: RegionKind, name: str) -> None:
        """Let go of one region, or (empty name) all of its kind."""
        if kind == "system":
            self._regions.unregister(name)

    async def regions(self, kind: RegionKind, name: str) -> list[dict[str, JsonValue]]:
        """One region, or (empty name) all of its kind; there are no CUDA regions."""
        if kind == "system":
            return [dict(status) for status in self._regions.status(name)]
        if name:
            raise NotFound(f"Unable to find cuda shared memory region: '{name[:128]}'")
        return []

    async def _repeat(self, call: ControlCall) -> None:
        region, traced = region_call(call), trace_call(call)
        if region is not None:
            await self.register_region("system", region, call.body)
        elif (left := let_go_call(call)) is not None:
            await self.unregister_region("system", left)
        elif traced is not None:
            await self.trace_settings(traced, call.body)
        elif sets_logs(call):
            await self.log_settings(call.body)


def _whole(body: Json, field: str, default: int | None) -> int:
    value = body.get(field, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadInput("must be a whole number", field=field)
    return value
