"""ControlPlane: repository control, shared memory, log and trace settings for the whole mesh; called by both wires.

The one invariant: what was done everywhere is remembered by the edge before it is done, so that a replica which starts
meanwhile does it too; what was done nowhere is not.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, TypeVar
from urllib.parse import quote
from weakref import WeakValueDictionary

import structlog
from pydantic import JsonValue

from serving.backends.control import check_mode
from serving.backends.overrides import read_overrides
from serving.errors import BadInput, NotFound, ReelmeshError, Unavailable
from serving.gateway.oip_checks import (
    Json,
    check_model_name,
    check_region_name,
    log_changes,
    region_body,
    trace_changes,
    unload_dependents,
)
from serving.gateway.oip_fanout import Answers, Fanout
from serving.gateway.oip_mesh import OipMesh
from serving.protocol.control import ControlCall
from serving.protocol.endpoint import Heartbeat
from serving.settings import InferenceSettings

log = structlog.get_logger()

T = TypeVar("T")
Kind = Literal["system", "cuda"]

LOAD_S: Final = 3600.0
"""How long one replica may take to load a model."""
SET_S: Final = 30.0


class ControlPlane:
    """Acts on all replicas.

    Args:
        mesh: knows them.
        fanout: asks them.
        settings: whether clients may load and unload.
        host: where regions of shared memory are: replicas on other machines are not asked for them.
    """

    def __init__(self, mesh: OipMesh, fanout: Fanout, settings: InferenceSettings, host: str) -> None:
        self._mesh = mesh
        self._fanout = fanout
        self._settings = settings
        self._host = host
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._working: set[asyncio.Task[Any]] = set()

    async def load(self, name: str, parameters: Json) -> None:
        """Load or reload a model on every replica that may hold it.

        Raises:
            NotFound: nobody knows the model.
            Unavailable: no replica answers that might.
            ReelmeshError: of the first replica that failed; says how many did, and that the others serve it.
        """
        check_mode(self._settings)
        key, path = f"model/{check_model_name(name)}", f"/v2/repository/models/{quote(name, safe='')}/load"

        async def work() -> None:
            # Files may be large, and their base64 is looked at whole.
            await asyncio.to_thread(read_overrides, name, parameters)
            call = _call(key, path, parameters)
            before = await self._remembered(call.key)
            answers = await self._do(call, before, await self._mesh.engines(), LOAD_S)
            if not answers.done and not answers.failed:
                raise self._not_found(name, answers)
            _raise(answers.problem(f"load '{name}'", "the others serve it, as the repository index shows"))

        await self._in_turn(key, work)

    async def unload(self, name: str, parameters: Json) -> None:
        """Unload a model everywhere; one that nobody holds is no error, as in Triton."""
        check_mode(self._settings)
        dependents = unload_dependents(parameters)
        path = f"/v2/repository/models/{quote(check_model_name(name), safe='')}/unload"
        call = _call(f"model/{name}", path, {"unload_dependents": dependents})

        async def work() -> None:
            before = await self._remembered(call.key)
            answers = await self._do(call, before, await self._mesh.engines(), LOAD_S)
            _raise(answers.problem(f"unload '{name}'", "the others have unloaded it"))
            # A replica that starts later loads it only if it is asked for at start.
            if not dependents and not self._loads_at_start(name):
                await self._mesh.edge.forget(call.key)

        await self._in_turn(call.key, work)

    async def log_settings(self, changes: Json) -> dict[str, JsonValue]:
        """Change the log settings of every replica, or tell those in force where there are no changes."""
        return await self._settings_of("logging", "/v2/logging", log_changes(changes))

    async def trace_settings(self, model: str, changes: Json) -> dict[str, JsonValue]:
        """Change the trace settings of all models, or of one; tell those in force."""
        checked = trace_changes(changes)
        if not model:
            return await self._settings_of("trace", "/v2/trace/setting", checked)
        path = f"/v2/models/{quote(check_model_name(model), safe='')}/trace/setting"
        try:
            return await self._settings_of(f"trace/{model}", path, checked)
        except NotFound as error:
            raise BadInput(f"Request for unknown model : {model}") from error

    async def register(self, kind: Kind, region: str, body: Json) -> None:
        """Register a region of shared memory with every replica of this machine, or with none."""
        checked = region_body(kind, body)
        base = _region(kind, region)
        call = ControlCall(key=f"{kind}/{region}", path=f"{base}/register", body=checked)

        async def work() -> None:
            before = await self._remembered(call.key)
            answers = await self._do(call, before, await self._neighbours(), SET_S)
            if answers.failed and answers.done:
                await self._fanout.ask([each.replica for each in answers.done], f"{base}/unregister", {}, SET_S)
                await self._restore(call.key, before)
            _raise(answers.problem(f"register '{region}'", "so it was unregistered from the others"))
            if not answers.done:
                _raise(_aside(answers) or _no_replica())

        await self._in_turn(call.key, work)

    async def unregister(self, kind: Kind, region: str) -> None:
        """Unregister one region, or (empty name) all of its kind; one that is not registered is no error."""
        base = _region(kind, region) if region else f"/v2/{kind}sharedmemory"

        async def work() -> None:
            await self._mesh.edge.forget(f"{kind}/{region}")
            answers = await self._fanout.ask(await self._neighbours(), f"{base}/unregister", {}, SET_S)
            _raise(answers.problem(f"unregister '{region}'", "the others have unregistered it"))

        await self._in_turn(f"{kind}/{region}", work)

    async def regions(self, kind: Kind, region: str) -> list[dict[str, JsonValue]]:
        """The regions that replicas of this machine know; raises :class:`NotFound` for a name that none knows."""
        base = _region(kind, region) if region else f"/v2/{kind}sharedmemory"
        answers = await self._fanout.ask(await self._neighbours(), f"{base}/status", None, SET_S)
        found: dict[str, dict[str, JsonValue]] = {}
        for answer in answers.done:
            for entry in answer.document if isinstance(answer.document, list) else []:
                if isinstance(entry, dict):
                    found.setdefault(str(entry.get("name", "")), entry)
        if region and not found:
            _raise(answers.problem("tell its regions", ""))
            raise NotFound(f"Unable to find {kind} shared memory region: '{region}'")
        return [found[name] for name in sorted(found)]

    async def _settings_of(self, key: str, path: str, changes: Json) -> dict[str, JsonValue]:
        if not changes:
            return _document(await self._fanout.ask(await self._mesh.engines(), path, None, SET_S))

        async def work() -> dict[str, JsonValue]:
            before = await self._remembered(key)
            # Changes add up: a replica that starts later must repeat the earlier ones too.
            call = ControlCall(key=key, path=path, body={**(before.body if before else {}), **changes})
            answers = await self._do(call, before, await self._mesh.engines(), SET_S, changes)
            document = _document(answers)
            _raise(answers.problem("change its settings", "the others have changed them"))
            return document

        return await self._in_turn(key, work)

    async def _do(
        self,
        call: ControlCall,
        before: ControlCall | None,
        replicas: Sequence[Heartbeat],
        patience_s: float,
        sent: Json | None = None,
    ) -> Answers:
        """Remember the call, make it, and put back what was remembered before if nobody did it."""
        await self._mesh.edge.remember(call)
        answers = Answers()
        try:
            answers = await self._fanout.ask(replicas, call.path, call.body if sent is None else sent, patience_s)
        finally:
            if not answers.done:
                await self._restore(call.key, before)
        return answers

    async def _remembered(self, key: str) -> ControlCall | None:
        return next(iter(await self._mesh.edge.recall(key)), None)

    async def _restore(self, key: str, before: ControlCall | None) -> None:
        await (self._mesh.edge.forget(key) if before is None else self._mesh.edge.remember(before))

    async def _neighbours(self) -> list[Heartbeat]:
        replicas = await self._mesh.engines()
        return [each for each in replicas if each.control and each.control.address.rpartition(":")[0] == self._host]

    async def _in_turn(self, key: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work after others with this key, and to its end, whatever becomes of the client that asked."""

        async def done() -> T:
            async with self._turn(key):
                return await work()

        task = asyncio.create_task(done())
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return await asyncio.shield(task)

    @asynccontextmanager
    async def _turn(self, key: str) -> AsyncIterator[None]:
        lock = self._turns.setdefault(key, asyncio.Lock())
        async with lock:
            yield

    def _not_found(self, name: str, answers: Answers) -> ReelmeshError:
        """Why nobody has loaded a model that nobody failed to load."""
        kinds = {answer.replica.kind for answer in answers.aside}
        if not kinds:
            return _no_replica()
        refused = next((each.error for each in answers.aside if not isinstance(each.error, NotFound)), None)
        if refused is not None:
            return BadInput(refused.problem)
        if self._settings.triton == "auto" and "triton" not in kinds:
            # The model may be one of Triton's, whose replica is just being replaced.
            return Unavailable(f"failed to load '{name}', no Triton replica answers", fix="try again in a moment")
        return NotFound(f"failed to load '{name}', failed to poll from model repository")

    def _loads_at_start(self, name: str) -> bool:
        return name in self._settings.load_models or "*" in self._settings.load_models


def _call(key: str, path: str, parameters: Mapping[str, JsonValue]) -> ControlCall:
    return ControlCall(key=key, path=path, body={"parameters": dict(parameters)})


def _region(kind: Kind, region: str) -> str:
    return f"/v2/{kind}sharedmemory/region/{quote(check_region_name(region), safe='')}"


def _document(answers: Answers) -> dict[str, JsonValue]:
    """The settings in force, as the first replica tells them."""
    for answer in answers.done:
        if isinstance(answer.document, dict):
            return answer.document
    _raise(answers.problem("tell its settings", ""))
    raise _aside(answers) or _no_replica()


def _no_replica() -> Unavailable:
    """Nobody has a control port at the moment."""
    return Unavailable("no replica answers", fix="try again in a moment")


def _aside(answers: Answers) -> ReelmeshError | None:
    return next((answer.error for answer in answers.aside if answer.error is not None), None)


def _raise(error: ReelmeshError | None) -> None:
    if error is not None:
        raise error
