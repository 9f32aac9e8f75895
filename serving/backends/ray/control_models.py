"""ModelSet: the models of a replica group that a Ray replica holds, loaded and unloaded while it runs.

EngineReplica owns one; the control port and the watch on the repository's folders change it.
The one invariant: a model in READY is in the plane; a load that fails leaves what served before serving.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

import structlog

from serving import telemetry
from serving.backends.base import Engine, EngineContext, StartsCold
from serving.backends.call import Call
from serving.backends.cold_start import COLD_STARTS
from serving.backends.control import Json
from serving.backends.control_calls import ModelCall
from serving.backends.overrides import FOLDER, keep_only, read_overrides
from serving.backends.ray.config_defaults import with_defaults
from serving.backends.ray.control_engines import load_versions
from serving.backends.ray.control_overrides import newcomer, overridden
from serving.backends.ray.engines import load_engine
from serving.backends.ray.oip_plane import OipPlane
from serving.backends.ray.served import FunctionEngine, Infer, ServedModel
from serving.errors import BadInput, Conflict, EngineFailed, NotFound, ReelmeshError, Unsupported, foreign_text
from serving.protocol.control import UNLOADED, ModelState
from serving.protocol.licences import COMMERCIAL
from serving.protocol.oip_errors import error_text
from serving.protocol.tasks import TaskRequest, TaskResult
from serving.repository.licences import Licences, typed_task
from serving.repository.load import Repository
from serving.repository.model import TENSOR_TASK, Model
from serving.repository.served import load_one, load_served, requested
from serving.settings import Settings

log = structlog.get_logger()

MOST_TOLD: Final = 4096
"""Models of which it is told that they do not load: clients may make up names."""

Changed = Callable[[], Awaitable[None]]


class ModelSet:
    """The models of one group.

    Args:
        settings: of the mesh; ``inference`` says what is loaded at start.
        group: the replica group.
        plane: serves what is loaded.
        context: given to engines.
        typed: answers requests of models with a typed task.
        changed: tells the edge; awaited whenever what is served has changed.
    """

    def __init__(
        self, settings: Settings, group: str, plane: OipPlane, context: EngineContext, typed: Infer, changed: Changed
    ) -> None:
        self._settings = settings
        self._group = group
        self._plane = plane
        self._context = context
        self._typed = typed
        self._changed = changed
        self._states: dict[str, dict[str, ModelState]] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._leaving: set[str] = set()
        self.models: dict[str, Model] = {}
        self.licences = Licences(self.models, settings.licences)
        self.engines: dict[str, TypedEngine] = {}

    async def start(self, calls: Sequence[ModelCall] = ()) -> None:
        """Load what is asked for from the beginning, and what was loaded and unloaded since.

        Args:
            calls: of clients, which replicas that start later repeat; one for each model at most.

        Raises:
            ReelmeshError: a model does not load, and none comes and goes here (``model_control_mode`` none).
        """
        repository = await asyncio.to_thread(load_served, self._settings)
        wanted = requested(repository, self._settings.inference)
        todo: dict[str, Json] = {name: {} for name in self._known(repository) if name in wanted}
        for call in calls:
            todo.pop(call.name, None)
            if call.load:
                todo[call.name] = call.parameters
        strict = self._settings.inference.model_control_mode == "none"
        for name, parameters in todo.items():
            try:
                await self._load(name, parameters)
            except NotFound:
                continue  # another group's, or gone since
            except ReelmeshError as error:
                if strict:
                    raise
                log.error("model_not_loaded", model=name, error=error_text(error))

    async def index(self) -> list[ModelState]:
        """Every model of the group, those that are not loaded too."""
        try:
            known = self._known(await asyncio.to_thread(load_served, self._settings))
        except BadInput as error:  # somebody is at work on the folders; what serves goes on
            log.warning("repository_not_read", error=str(error))
            known = []
        found = self.states()
        found += [ModelState(name=name, state="UNAVAILABLE") for name in known if name not in self._states]
        return sorted(found, key=_by_name)

    def states(self) -> list[ModelState]:
        """The models that were ever loaded here, or should have been."""
        return [state for versions in self._states.values() for state in versions.values()]

    def serving(self) -> list[str]:
        """Names of the models in rotation."""
        return [name for name in self._plane.names() if name not in self._leaving]

    async def reload(self, name: str, parameters: Json | None = None) -> None:
        """Load a model as its folder is now, or as the overrides make it.

        Raises:
            NotFound: the group has no such model.
            BadInput: the overrides are wrong, or the model does not load; what was loaded before goes on serving.
        """
        await self._load(name, parameters or {})
        await self._changed()

    async def remove(self, name: str, *, hide: bool = False) -> None:
        """Take a model out of rotation, let its requests finish, free it.

        Args:
            name: of the model.
            hide: whether the index then names it no longer.

        Raises:
            NotFound: the group has no such model.
        """
        if name not in self._states:
            with contextlib.suppress(BadInput):  # a broken folder is nothing that could be loaded here
                await asyncio.to_thread(self._one, name)
            return
        async with self._lock(name):
            self.models.pop(name, None)
            self.engines.pop(name, None)
            if name in self._plane.names():
                await self._take_out(name)
            telemetry.MODEL_READY.labels(name, "ray").set(0)
            self._mark(name, "UNAVAILABLE", UNLOADED)
            if hide:
                del self._states[name]
            await asyncio.to_thread(keep_only, None, self._own_folder(name))
        await self._changed()

    async def _take_out(self, name: str) -> None:
        self._mark(name, "UNLOADING", "")
        self._leaving.add(name)
        try:
            await self._changed()
            await self._plane.remove(name, self._settings.inference.exit_timeout_s)
        except Exception as error:  # whatever an engine raises while it closes, nothing reaches it any more
            log.warning("close_failed", model=name, error=foreign_text(error))
        finally:
            self._leaving.discard(name)

    def typed(self, name: str) -> tuple[Model, "TypedEngine"]:
        """A model that runs typed requests.

        Raises:
            NotFound: the replica does not hold it, or no more.
            Unsupported: it has no typed task.
        """
        if name not in self.models:
            raise NotFound(f"this replica does not hold the model {name!r}")
        if name not in self.engines:
            raise Unsupported(f"the model {name!r} has no typed task", fix="reach it by OIP inference")
        return self.models[name], self.engines[name]

    def terms(self, name: str) -> dict[str, str]:
        """What an :class:`Endpoint` tells of a model's task and licence; nothing of one that is just being loaded."""
        model = self.models.get(name)
        return {} if model is None else {"task": typed_task(model), "refuses": self.licences.reason(model)}

    def _known(self, repository: Repository) -> list[str]:
        return [model.name for model in repository.groups().get(self._group, ())]

    def _one(self, name: str) -> Model:
        """The model as its folder is now; raises :class:`NotFound` where the group has none of that name."""
        model = load_one(self._settings, name)
        if model.replica_group != self._group:
            raise NotFound(f"failed to load '{name[:256]}', it is not of this replica's group", field="model")
        return model

    def _overridden(self, name: str, parameters: Json) -> Model:
        overrides = read_overrides(name, parameters)
        if not overrides.files:
            return overridden(self._one(name), overrides, self._context.scratch)
        try:
            known = self._one(name)
        except (NotFound, BadInput):
            made = newcomer(name, overrides, triton=self._settings.inference.triton != "off")
            if made is None or made.replica_group != self._group:
                raise
            known = made
        return overridden(known, overrides, self._own_folder(name) / secrets.token_hex(6))

    def _own_folder(self, name: str) -> Path:
        """Where files of a model's loads lie, each load's in a folder of its own."""
        return self._context.scratch / FOLDER / name

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    async def _load(self, name: str, parameters: Json) -> None:
        async with self._lock(name):
            began = time.monotonic()
            try:
                model = await asyncio.to_thread(self._overridden, name, parameters)
                self._states.setdefault(name, {"": ModelState(name=name, state="LOADING")})
                served = await self._added(model)
            except NotFound:
                raise
            except Exception as error:  # an engine may raise anything
                self._failed(name, error)
                raise _load_error(name, error) from error
            else:
                self.models[name] = model
                self._loaded(model, served, time.monotonic() - began)
            finally:
                used = self.models.get(name)
                await asyncio.to_thread(keep_only, used.folder if used else None, self._own_folder(name))

    async def _added(self, model: Model) -> ServedModel:
        """Load a model and let it serve; where it cannot, nothing of it stays loaded."""
        served = await self._served(model)
        if self.licences.reason(model):
            served = replace(served, refuses=partial(self.licences.refusal, model, COMMERCIAL))
        try:
            self._plane.add(served)
        except BaseException:
            await served.engine.close()
            raise
        if isinstance(served.engine, TypedEngine):
            self.engines[model.name] = served.engine
        return served

    async def _served(self, model: Model) -> ServedModel:
        if model.card.task == TENSOR_TASK:
            return await load_versions(model, self._context)
        if model.name in self.engines:
            raise Conflict(f"model '{model.name}' is loaded and cannot be replaced while it serves", field="model")
        engine = await asyncio.to_thread(load_engine, model, self._context)
        try:
            await self._warmed(model, engine)
        except BaseException:
            await engine.close()
            raise
        return ServedModel(
            with_defaults(model.config),
            ("1",),
            TypedEngine(self._typed, engine, self._settings.inference.exit_timeout_s),
            self._settings.limits.inflight_per_replica,
            waiting=0,
        )

    async def _warmed(self, model: Model, engine: Engine) -> None:
        """Run the first request of a network before any other comes, and keep what its cold start took."""
        if not isinstance(engine, StartsCold):
            return
        if model.card.warm_up:
            await engine.warm_up()
        took = engine.cold_start
        log.info("cold_start", model=model.name, download_s=round(took.download_s, 3), load_s=round(took.load_s, 3),
                 warm_up_s=took.warm_up_s and round(took.warm_up_s, 3), weights_bytes=took.weights_bytes)  # fmt: skip
        await asyncio.to_thread(took.save, self._settings.home / COLD_STARTS, model.name)

    def _loaded(self, model: Model, served: ServedModel, seconds: float) -> None:
        telemetry.MODEL_LOAD_SECONDS.labels(model.name, "ray").set(seconds)
        telemetry.MODEL_READY.labels(model.name, "ray").set(1)
        log.info("model_loaded", model=model.name, engine=model.card.engine, seconds=round(seconds, 3))
        left = {version: ModelState(name=model.name, version=version, state="UNAVAILABLE", reason=UNLOADED)
                for version in self._states[model.name] if version}  # fmt: skip
        ready = {version: ModelState(name=model.name, version=version, state="READY") for version in served.versions}
        self._states[model.name] = left | ready

    def _failed(self, name: str, error: Exception) -> None:
        """What served before goes on; else the index says why nothing does."""
        if name not in self._states or name in self._plane.names():
            return
        if len(self._states) > MOST_TOLD:
            del self._states[name]
        else:
            reason = error_text(error) if isinstance(error, ReelmeshError) else foreign_text(error)
            self._mark(name, "UNAVAILABLE", reason)

    def _mark(self, name: str, state: str, reason: str) -> None:
        changes = {"state": state, "reason": reason}
        self._states[name] = {
            version: known.model_copy(update=changes) for version, known in self._states[name].items()
        }


class TypedEngine(FunctionEngine):
    """A typed engine as the plane sees it.

    Args:
        infer: answers one request through the engine.
        engine: is closed with it.
        grace_s: how long typed requests in flight may take then.
    """

    def __init__(self, infer: Infer, engine: Engine, grace_s: float) -> None:
        super().__init__(infer)
        self._engine = engine
        self._grace_s = grace_s
        self._running = 0
        self._idle = asyncio.Event()

    async def run(self, request: TaskRequest, call: Call) -> TaskResult:
        """Run one typed request, whichever way it came; see :meth:`Engine.run`."""
        self._running += 1
        try:
            return await self._engine.run(request, call)
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def close(self) -> None:
        """Free the engine, once no request is with it or their time is up."""
        self._idle.clear()
        if self._running:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._grace_s):
                    await self._idle.wait()
        await self._engine.close()


def _load_error(name: str, error: Exception) -> ReelmeshError:
    """The same error in Triton's frame, once."""
    prefix = f"failed to load '{name}'"
    if not isinstance(error, ReelmeshError):
        return EngineFailed(f"{prefix}: {foreign_text(error)}")
    text = error_text(error)
    return type(error)(text if text.startswith(prefix) else f"{prefix}, {text}")


def _by_name(state: ModelState) -> tuple[str, int]:
    return state.name, int(state.version or 0)
