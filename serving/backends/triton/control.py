"""TritonControl: what a Triton replica can be asked by the control plane, and what it tells of itself; held by
TritonReplica, called by its ControlServer.

The one invariant: what the replica tells is Triton's own repository index, read after every change; a model is told as
an endpoint only while Triton says READY and nobody is unloading it.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote
from weakref import WeakValueDictionary

import structlog
from pydantic import JsonValue

from serving.backends.control import Json, RegionKind, check_mode
from serving.backends.control_calls import ModelCall, model_call
from serving.backends.overrides import FOLDER, keep_only
from serving.backends.triton.overrides import ensemble_steps, model_to_load
from serving.backends.triton.regions import check_region
from serving.backends.triton.server import TritonServer
from serving.errors import (
    BadInput,
    EngineFailed,
    MissingDependency,
    NotFound,
    ReelmeshError,
    Unavailable,
    Unsupported,
    shown,
)
from serving.protocol.control import UNLOADED, ControlCall, ModelState
from serving.repository.model import Model
from serving.repository.served import steps
from serving.settings import Settings

log = structlog.get_logger()

Announce = Callable[[Sequence[ModelState], Collection[str]], Awaitable[None]]
"""Told every model's state, and the names of those that take requests; returns when the edge knows."""

SETTLE_S: Final = 0.1
"""How often the index is read while a model is being loaded or unloaded."""
UNLOAD_S: Final = 5.0
"""How long an unload waits for what is in flight; it then goes on by itself."""
_WORKING: Final = ("LOADING", "UNLOADING")
MOST_TOLD: Final = 1024
"""Models of which it is told why they do not load: clients may make up names."""


class TritonControl:
    """Acts on one replica's Triton; a :class:`ReplicaControl`.

    Args:
        settings: of the whole mesh.
        server: the Triton.
        announce: told the models' states after every change.
    """

    def __init__(self, settings: Settings, server: TritonServer, announce: Announce) -> None:
        self._settings = settings
        self._server = server
        self._announce = announce
        self._failures: dict[str, str] = {}
        self._leaving: set[str] = set()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._telling = asyncio.Lock()
        self._follower: asyncio.Task[None] | None = None

    async def index(self) -> list[ModelState]:
        """Triton's index; a model whose last load failed carries the reason, whatever still serves."""
        found = await self._server.index()
        ready = {state.name for state in found if state.state == "READY"}
        states = [self._told(state, serves=state.name in ready) for state in found]
        unknown = self._failures.keys() - {state.name for state in states}
        return states + [
            ModelState(name=name, state="UNAVAILABLE", reason=self._failures[name]) for name in sorted(unknown)
        ]

    def _told(self, state: ModelState, *, serves: bool) -> ModelState:
        reason = self._failures.get(state.name) if self._server.ports is not None else None
        if reason is not None and state.state == "UNAVAILABLE" and not serves and state.reason not in reason:
            # The last failure was before Triton was asked, which tells of an earlier load.
            return state.model_copy(update={"reason": reason})
        if reason is not None and (state.state == "READY" or not state.reason):
            return state.model_copy(update={"reason": reason})
        if state.state == "UNAVAILABLE" and state.name not in self._server.models:
            # Why it did not load before does not matter once nobody wants it.
            return state.model_copy(update={"reason": UNLOADED})
        return state

    async def tell(self) -> None:
        """Announce the models as they are now, and again until Triton tells and none is being loaded or unloaded."""
        try:
            settled = not any(state.state in _WORKING for state in await self._tell())
        except Unavailable as error:
            log.warning("triton_index_not_read", error=str(error))
            settled = False
        if not settled and (self._follower is None or self._follower.done()):
            self._follower = asyncio.create_task(self._follow())

    async def load(self, name: str, parameters: Json) -> None:
        """Load or reload a model, as its folder is now or as the overrides make it."""
        check_mode(self._settings.inference)
        await self.reload(name, parameters)

    async def unload(self, name: str, *, dependents: bool) -> None:
        """Take a model out of rotation, then unload it; what is in flight finishes."""
        check_mode(self._settings.inference)
        await self.remove(name, dependents=dependents)

    async def reload(self, name: str, parameters: Json | None = None) -> None:
        """As :meth:`load`, whatever the control mode is.

        Raises:
            NotFound: no repository has the model, or another kind of replica serves it.
            BadInput: it does not load; what was loaded before goes on serving.
        """
        async with self._turn(name), self._folders(name):
            try:
                model = await asyncio.to_thread(self._model, name, parameters or {})
                others = await asyncio.to_thread(ensemble_steps, self._settings, model)
                await self._server.load(model, others)
            except NotFound:
                raise
            except (BadInput, MissingDependency) as error:
                await self._failed(name, error)
                # To a client that loads it, a backend that is not here is the model's fault, as in Triton.
                raise BadInput(error.problem, field=error.field, fix=error.fix) from error
            self._failures.pop(name, None)
            await self.tell()

    async def remove(self, name: str, *, dependents: bool = False, hide: bool = False) -> None:
        """As :meth:`unload`, whatever the control mode is.

        Args:
            name: of the model.
            dependents: whether an ensemble's steps go too.
            hide: whether the index then names it no longer.

        Raises:
            NotFound: this replica does not hold it.
        """
        async with self._turn(name), self._folders(name):
            failed = self._failures.pop(name, None)
            model = self._server.models.get(name)
            if model is not None:
                try:
                    await self._unload(model, dependents=dependents)
                except ReelmeshError:
                    await self.tell()  # it is in rotation again
                    raise
            elif failed is None:
                raise NotFound(f"no Triton replica holds '{name[:128]}'", field="model")
            if hide:
                await self._server.hide(name)
            await self.tell()

    async def repeat(self, calls: Sequence[ControlCall]) -> None:
        """Do again what a Triton that has just started does not know: regions and settings; failures are logged."""
        for call in calls:
            if model_call(call) is None:
                try:
                    await self._server.ask("POST", call.path, call.body)
                except ReelmeshError as error:
                    log.warning("triton_call_not_repeated", key=call.key, error=str(error))

    async def repeat_model(self, call: ModelCall) -> None:
        """Load or unload a model, whatever the control mode is."""
        if call.load:
            await self.reload(call.name, call.parameters)
        else:
            await self.remove(call.name, dependents=call.parameters.get("unload_dependents") is True)

    async def log_settings(self, changes: Json) -> dict[str, JsonValue]:
        """Triton's log settings."""
        return await self._settings_at("/v2/logging", changes)

    async def trace_settings(self, model: str, changes: Json) -> dict[str, JsonValue]:
        """Triton's trace settings, of one model or (empty name) all."""
        if model and model not in self._server.models:
            raise NotFound(f"Request for unknown model : {model[:128]}", field="model")
        path = f"/v2/models/{quote(model, safe='')}/trace/setting" if model else "/v2/trace/setting"
        return await self._settings_at(path, changes)

    async def register_region(self, kind: RegionKind, name: str, body: Json) -> None:
        """Have Triton map a region."""
        if kind == "cuda" and not self._server.gpus:
            problem = f"failed to register CUDA shared memory region: '{name}', GPUs not supported"
            raise Unsupported(problem, fix="run the replica on a node with a GPU")
        if quote(name, safe="") != name:
            # Triton takes names out of addresses as they stand there.
            raise BadInput("may have letters, digits, '-', '.', '_' and '~' alone", field=f"region name {shown(name)}")
        if kind == "system":
            await asyncio.to_thread(check_region, body)
        await self._change(f"{_region(kind, name)}/register", body)

    async def unregister_region(self, kind: RegionKind, name: str) -> None:
        """Have Triton let go of one region, or (empty name) all of its kind."""
        await self._server.ask("POST", f"{_region(kind, name)}/unregister", {})

    async def regions(self, kind: RegionKind, name: str) -> list[dict[str, JsonValue]]:
        """The regions that Triton has mapped."""
        found = await self._server.ask("GET", f"{_region(kind, name)}/status")
        return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []

    async def close(self) -> None:
        """Stop looking at models that are being loaded or unloaded."""
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)

    def _model(self, name: str, parameters: Json) -> Model:
        return model_to_load(self._settings, name, parameters, partial(self._new_folder, name))

    def _new_folder(self, name: str) -> Path:
        folder = self._server.scratch / FOLDER / name / secrets.token_hex(6)
        folder.mkdir(parents=True)
        return folder

    @contextlib.asynccontextmanager
    async def _folders(self, name: str) -> AsyncIterator[None]:
        """Afterwards, of the folders with a model's overrides only the one in use is left."""
        try:
            yield
        finally:
            model = self._server.models.get(name)
            await asyncio.to_thread(keep_only, model.folder if model else None, self._server.scratch / FOLDER / name)

    async def _failed(self, name: str, error: ReelmeshError) -> None:
        if name in self._failures or len(self._failures) < MOST_TOLD:
            self._failures[name] = error.problem
        elif not any(
            state.name == name and state.state in ("READY", *_WORKING) for state in await self._server.index()
        ):
            self._server.forget(name)
            await self._server.hide(name)
        await self.tell()

    async def _unload(self, model: Model, *, dependents: bool) -> None:
        inner = steps(model)
        names = {model.name, *(inner if dependents else ())}
        self._leaving |= names
        try:
            await self._tell()
            await self._server.unload(model.name, dependents=dependents)
            states = await self._until_unloaded(names)
        finally:
            self._leaving -= names
        for name in {model.name, *inner}:
            if is_gone([state for state in states if state.name == name]):
                self._server.forget(name)

    async def _until_unloaded(self, names: Collection[str]) -> list[ModelState]:
        """The index once the models are gone, or :data:`UNLOAD_S` seconds later."""
        states: list[ModelState] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(UNLOAD_S):
                while any(state.name in names and state.state in _WORKING for state in states) or not states:
                    states = await self._server.index()
                    await asyncio.sleep(SETTLE_S)
        return states

    async def _tell(self) -> list[ModelState]:
        async with self._telling:
            states = await self.index()
            ready = {state.name for state in states if state.state == "READY"} - self._leaving
            await self._announce(states, ready)
            return states

    async def _follow(self) -> None:
        working = True
        while working:
            await asyncio.sleep(SETTLE_S)
            with contextlib.suppress(ReelmeshError):
                working = any(state.state in _WORKING for state in await self._tell())

    async def _settings_at(self, path: str, changes: Json) -> dict[str, JsonValue]:
        answer = await self._change(path, changes) if changes else await self._server.ask("GET", path)
        return answer if isinstance(answer, dict) else {}

    async def _change(self, path: str, body: Json) -> JsonValue:
        try:
            return await self._server.ask("POST", path, body)
        except EngineFailed as error:
            # Triton calls internal what is the caller's fault: a value of the wrong type, a region it cannot map.
            raise BadInput(error.problem) from error

    def _turn(self, name: str) -> asyncio.Lock:
        return self._turns.setdefault(name, asyncio.Lock())


def is_gone(states: Sequence[ModelState]) -> bool:
    """Whether a model, by the states of its versions, serves no longer and is not about to."""
    return not any(state.state in ("READY", "LOADING") for state in states)


def _region(kind: RegionKind, name: str) -> str:
    base = f"/v2/{kind}sharedmemory"
    return f"{base}/region/{quote(name, safe='')}" if name else base
