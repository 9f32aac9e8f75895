"""TritonServer: a tritonserver that stays up; held by TritonReplica and by tests.

The one invariant: it is either ready, or restarting (calls fail with a retryable error), or has given up and says
why; it never pretends.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
import structlog
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from pydantic import JsonValue

from serving import telemetry
from serving.backends.call import Call
from serving.backends.control import Json
from serving.backends.triton.client import Arrays
from serving.backends.triton.command import HOST, Options, Ports, Sockets
from serving.backends.triton.install import TritonInstall
from serving.backends.triton.process import Launch, TritonProcess
from serving.backends.triton.view import is_complete
from serving.backends.triton.workspace import Workspace
from serving.errors import BadInput, EngineFailed, MissingDependency, ReelmeshError, Unavailable, foreign_text
from serving.protocol.control import ModelState
from serving.repository.model import Model

log = structlog.get_logger()

DEATHS_PER_MINUTE: Final = 5
"""More deaths than this within a minute and the server gives up; Serve then replaces the replica."""
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
PROBE_S: Final = 2.0
PROBES_MISSED: Final = 5
"""Probes in a row without an answer after which a running process counts as hung and is killed."""


def restart_pause_s(deaths: Sequence[float], now: float) -> float | None:
    """How long to wait before the next start, given when the server died; None means to give up.

    Args:
        deaths: times of death in seconds, ascending; the last is the one at hand.
        now: the present time on the same clock.
    """
    recent = sum(1 for death in deaths if now - death < 60.0)  # noqa: PLR2004 - a minute
    if recent > DEATHS_PER_MINUTE:
        return None
    return float(min(FIRST_PAUSE_S * 4 ** max(recent - 1, 0), LONGEST_PAUSE_S))


class TritonServer:
    """Starts a tritonserver with some models and restarts it, with those it then holds, whenever it dies or hangs.

    Args:
        install: which server to run.
        models: loaded at start.
        home: the mesh's home; logs and run folders go there.
        options: how it runs.
        on_change: told the new ports after a restart, and None when the server has died.
    """

    def __init__(
        self,
        install: TritonInstall,
        models: Sequence[Model],
        home: Path,
        options: Options | None = None,
        *,
        on_change: Callable[[Ports | None], Awaitable[None]] | None = None,
    ) -> None:
        self.models = {model.name: model for model in models}
        self.restarts = 0
        self._install = install
        self._home = home
        self._options = options or Options()
        self._on_change = on_change
        self._generation = 0
        self._workspace: Workspace | None = None
        self._process: TritonProcess | None = None
        self._guard: asyncio.Task[None] | None = None
        self._gave_up: ReelmeshError | None = None
        self._deaths: deque[float] = deque(maxlen=DEATHS_PER_MINUTE + 1)

    async def start(self) -> None:
        """Start it and load its models.

        Raises:
            BadInput: a model does not load.
            EngineFailed: the server does not come up.
            MissingDependency: a model needs a backend that is not there.
        """
        started = time.monotonic()
        self._workspace = await asyncio.to_thread(Workspace.open, self._home)
        try:
            if not all(map(is_complete, self.models.values())):
                self._options = replace(self._options, completes=True)
            self._process = await self._first_run()
        except BaseException:
            self._workspace.close()
            raise
        self._guard = asyncio.create_task(self._stay_up(self._process))
        await self._tell(self._process.ports)
        log.info("triton_ready", ports=self._process.ports, seconds=round(time.monotonic() - started, 2))

    async def stop(self, *, drain_s: float | None = None) -> None:
        """Drain it, end it and remove its folder; may be called twice.

        Args:
            drain_s: how long requests in flight may take; None for what its options say.
        """
        if self._guard is not None:
            self._guard.cancel()
            await asyncio.gather(self._guard, return_exceptions=True)
        process, self._process = self._process, None
        if process is not None:
            await process.end(drain_s=self._options.exit_timeout_s if drain_s is None else drain_s)
        workspace, self._workspace = self._workspace, None
        if workspace is not None:
            workspace.close()

    @property
    def ports(self) -> Ports | None:
        """Where it listens, or None while it cannot serve."""
        return None if self._process is None else self._process.ports

    @property
    def sockets(self) -> Sockets | None:
        """Its Unix sockets, where it has some and can serve."""
        return None if self._process is None else self._process.sockets

    def check(self) -> None:
        """Raise :class:`EngineFailed` once the server has given up; a restart under way is no failure yet."""
        if self._gave_up is not None:
            raise EngineFailed(
                f"tritonserver does not stay up: {self._gave_up.problem}",
                fix=f"see {self._workspace.log_file if self._workspace else 'its log'}",
            )

    @property
    def gpus(self) -> int:
        """How many GPUs it has."""
        return self._options.gpus

    @property
    def scratch(self) -> Path:
        """A folder of this server's own, for as long as it is not stopped."""
        assert self._workspace is not None  # noqa: S101 - start() made it
        return self._workspace.folder

    async def load(self, model: Model, steps: Sequence[Model] = ()) -> None:
        """Load or reload a model, as it is on disk now.

        Where that fails, what was loaded before goes on serving, and is what a restart brings back.

        Args:
            model: what to load; an ensemble's steps are loaded with it.
            steps: of an ensemble, and of the ensembles among them.

        Raises:
            BadInput: it does not load.
            MissingDependency: its backend is not there.
            Unavailable: a restart is under way.
        """
        process = self._running()
        new = {each.name: each for each in (*steps, model)}
        before = {name: self.models[name] for name in new if name in self.models}
        self.models.update(new)
        try:
            for each in new.values():
                await process.show(each)
            await process.load(model)
        except ReelmeshError:
            self.models.update(before)
            for each in before.values():
                with contextlib.suppress(BadInput, MissingDependency):
                    await process.show(each)
            raise

    async def unload(self, name: str, *, dependents: bool) -> None:
        """Begin to unload a model; :meth:`index` tells when it is done."""
        await self._running().admin.unload(name, dependents=dependents)

    def forget(self, name: str) -> None:
        """Do not bring an unloaded model back at a restart."""
        self.models.pop(name, None)

    async def hide(self, name: str) -> None:
        """Take an unloaded model out of Triton's view, so that the index names it no longer."""
        if self._process is not None:
            await self._process.hide(name)

    async def index(self) -> list[ModelState]:
        """Triton's own repository index, and with it the models that it should hold and does not know."""
        process = self._process
        known = [] if process is None else await process.admin.index()
        missing = sorted(self.models.keys() - {state.name for state in known})
        reasons = {name: process.unshown.get(name, "not loaded yet") for name in missing} if process else {}
        return known + [
            ModelState(name=name, state="UNAVAILABLE", reason=reasons.get(name, "tritonserver is restarting"))
            for name in missing
        ]

    async def ask(self, method: str, path: str, body: Json | None = None) -> JsonValue:
        """One call to Triton's control plane: settings and shared memory; raises :class:`Unavailable` in a restart."""
        return await self._running().admin.ask(method, path, body)

    def _running(self) -> TritonProcess:
        if self._process is None:
            raise Unavailable("tritonserver is restarting")
        return self._process

    async def infer(self, model: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str], call: Call) -> Arrays:
        """As :meth:`TensorClient.infer`; raises :class:`Unavailable` during a restart."""
        if self._process is None:
            raise Unavailable("tritonserver is restarting", field=model)
        return await self._process.client.infer(model, inputs, outputs, call)

    async def pending(self) -> int:
        """Requests that wait in Triton's queues, whoever sent them; 0 while it cannot be asked."""
        return pending_requests(await self.metrics())

    async def metrics(self) -> str:
        """Triton's own metrics as Prometheus text; empty while it cannot be asked."""
        ports = self.ports
        if ports is None:
            return ""
        try:
            async with httpx.AsyncClient(timeout=PROBE_S, trust_env=False) as client:
                return (await client.get(f"http://{HOST}:{ports.metrics}/metrics")).text
        except httpx.HTTPError:
            return ""

    async def _first_run(self) -> TritonProcess:
        """A process with every model loaded; one that ended by itself is tried once more, as it would be later."""
        try:
            return await self._run(strict=True)
        except EngineFailed as error:
            log.warning("triton_start_failed", error=str(error))
            return await self._run(strict=True)

    async def _run(self, *, strict: bool) -> TritonProcess:
        """A process with the models loaded; unless ``strict``, one that does not load is left to the index to tell."""
        assert self._workspace is not None  # noqa: S101 - start() made it
        self._generation += 1
        self._workspace.clear_shared_memory()
        folder = self._workspace.run_folder(self._generation)
        process = await TritonProcess.start(Launch(self._install, self._workspace, self._options), folder)
        try:
            await process.load_all(list(self.models.values()), strict=strict)
        except BaseException:
            await process.end(drain_s=0)
            raise
        return process

    async def _stay_up(self, process: TritonProcess) -> None:
        try:
            await self._restart_for_ever(process)
        except Exception as error:  # a bug of ours must show in check(), not end this task unseen
            log.exception("triton_unguarded")
            self._process, self._gave_up = None, EngineFailed(f"its guard failed: {foreign_text(error)}")

    async def _restart_for_ever(self, process: TritonProcess) -> None:
        while True:
            code = await _until_end(process)
            self._process = None
            log.error("triton_died", code=code, restarts=self.restarts)
            await process.end(drain_s=0)
            await self._tell(None)
            restarted = await self._restart(EngineFailed(f"tritonserver ended with code {code}"))
            if restarted is None:
                return
            process = self._process = restarted
            await self._tell(restarted.ports)

    async def _tell(self, ports: Ports | None) -> None:
        if self._on_change is not None:
            await self._on_change(ports)

    async def _restart(self, cause: ReelmeshError) -> TritonProcess | None:
        """Try until it runs again; None when it is time to give up."""
        while True:
            self._deaths.append(time.monotonic())
            pause_s = restart_pause_s(self._deaths, time.monotonic())
            if pause_s is None:
                self._gave_up = cause
                log.error("triton_gave_up", deaths=len(self._deaths), problem=cause.problem)
                return None
            await asyncio.sleep(pause_s)
            try:
                process = await self._run(strict=False)
            except ReelmeshError as error:
                cause = error
                log.warning("triton_restart_failed", error=str(error))
                continue
            self.restarts += 1
            telemetry.TRITON_RESTARTS.inc()
            log.info("triton_restarted", restarts=self.restarts, ports=process.ports)
            return process


async def _until_end(process: TritonProcess) -> int:
    """Wait for the process to end, and see to it that a hung one does, or one that has lost a model instance."""
    ended = asyncio.create_task(process.wait())
    missed = 0
    lost: set[int] = set()
    try:
        while not ended.done():
            await asyncio.wait({ended}, timeout=PROBE_S)
            if ended.done():
                break
            missed = 0 if await process.client.is_live(PROBE_S) else missed + 1
            before, lost = lost, await process.ended_instances()
            # Triton itself ends some when a model is unloaded, and takes note of it within a second.
            if missed >= PROBES_MISSED or before & lost:
                log.error("triton_hung", probes_missed=missed, instances_lost=len(before & lost))
                process.kill()
                missed, lost = 0, set()
        return ended.result()
    finally:
        ended.cancel()


def pending_requests(metrics: str) -> int:
    """Sum of ``nv_inference_pending_request_count`` over all models, from Prometheus text."""
    return sum(
        int(sample.value)
        for family in text_string_to_metric_families(metrics)
        if family.name == "nv_inference_pending_request_count"
        for sample in family.samples
    )
