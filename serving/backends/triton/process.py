"""TritonProcess: one run of tritonserver, from its start to the last signal; used by server.py.

The one invariant: after :meth:`TritonProcess.end`, or after the death of our own process, nothing it started is
left.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import psutil
import structlog

from serving import telemetry
from serving.backends.launch import command_of
from serving.backends.triton.admin import TritonAdmin
from serving.backends.triton.client import TensorClient
from serving.backends.triton.command import Options, environment, is_free, server_arguments
from serving.backends.triton.doors import Doors
from serving.backends.triton.install import TritonInstall
from serving.backends.triton.view import build_backends, build_python, write_model
from serving.backends.triton.workspace import Workspace
from serving.errors import BadInput, EngineFailed, MissingDependency, ReelmeshError, Unavailable
from serving.repository.model import Model

log = structlog.get_logger()

LIVE_TIMEOUT_S: Final = 20.0
LOAD_TIMEOUT_S: Final = 120.0
PROGRESS_S: Final = 2.0
PORT_TRIES: Final = 3
EXIT_MARGIN_S: Final = 2.0
"""How much longer than it was told to drain tritonserver may take to end before it is killed."""
END_KNOWN_S: Final = 1.0
"""How long after a connection broke the end of its process may become known."""
STACK_BYTES: Final = 256 << 20
"""Stack of each of its threads, as address space. Triton parses JSON by recursion without a bound: with the usual 8 MiB
some 130,000 opening brackets end it (measured, 64 bytes each), with this it takes 3 million."""


class TritonProcess:
    """A live tritonserver; made by :meth:`start`.

    ``unshown`` says by model why Triton does not even see it.
    """

    def __init__(
        self, child: asyncio.subprocess.Process, doors: Doors, token: str, repository: Path, launch: "Launch"
    ) -> None:
        host, ports = launch.options.host, doors.ports
        self.ports = ports
        self.sockets = doors.sockets
        self.client = TensorClient(f"unix:{doors.sockets.grpc}" if doors.sockets else f"{host}:{ports.grpc}", token)
        self.admin = TritonAdmin(f"{host}:{ports.http}", token)
        self.unshown: dict[str, str] = {}
        self._child = child
        self._doors = doors
        self._repository = repository
        self._launch = launch

    @classmethod
    async def start(cls, launch: "Launch", folder: Path) -> "TritonProcess":
        """Start a server on free ports, without models.

        Args:
            launch: what runs, and how.
            folder: for this run alone, not made yet.

        Raises:
            EngineFailed: the server did not come up; carries the end of its log.
        """
        variables = await asyncio.to_thread(_prepare, launch, folder)
        workspace = launch.workspace
        token = secrets.token_hex(16)
        for _ in range(PORT_TRIES):
            doors = await Doors.open(workspace, folder.name, launch.options.host)
            command = [str(launch.install.binary)]
            command += server_arguments(
                folder, doors.ports, workspace.shared_memory_prefix, token, workspace.trace_file, launch.options,
                sockets=doors.sockets,
            )  # fmt: skip
            try:
                child = await _spawn(command, workspace, folder, variables)
            except BaseException:
                await doors.close()
                raise
            process = cls(child, doors, token, folder / "repository", launch)
            try:
                if await process._came_up():
                    return process
            except BaseException:
                await process.end(drain_s=0)
                raise
            await process.end(drain_s=0)
            if all(is_free(port) for port in doors.ports):
                break
        tail = " ".join(workspace.log_tail().split())[-200:]
        raise EngineFailed(f"tritonserver ended while it started: {tail}", fix=f"see {workspace.log_file}")

    async def show(self, model: Model) -> None:
        """Put a model into the view that Triton has of the repository, as it is on disk now.

        Raises:
            BadInput: its folder cannot be read, or no Triton has its backend.
            MissingDependency: it needs a backend that this Triton does not have.
        """
        self.unshown.pop(model.name, None)
        try:
            await asyncio.to_thread(self._write, model)
        except (BadInput, MissingDependency) as error:
            self.unshown[model.name] = error.problem
            raise

    def _write(self, model: Model) -> None:
        try:
            write_model(model, self._repository, self._launch.install, gpus=self._launch.options.gpus)
        except OSError as error:
            problem = f"its folder cannot be read: {error.strerror or error}"
            raise BadInput(problem, field=str(model.folder), fix="put it back, or unload the model") from error

    async def hide(self, name: str) -> None:
        """Take an unloaded model out of the view."""
        self.unshown.pop(name, None)
        await asyncio.to_thread(shutil.rmtree, self._repository / name, ignore_errors=True)

    async def wait(self) -> int:
        """Until the process has ended; its exit code."""
        return await self._child.wait()

    async def ended_instances(self) -> set[int]:
        """Ids of model instances whose process has ended unnoticed.

        Triton never starts one again, and goes on calling the model ready that answers nothing any more.
        """
        return await asyncio.to_thread(_zombies, self._child.pid)

    def kill(self) -> None:
        """End it at once, together with the processes of its model instances."""
        try:
            os.killpg(self._child.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    async def end(self, *, drain_s: float) -> None:
        """Let requests in flight finish for at most ``drain_s`` seconds, then end the process and all it started."""
        try:
            if self._child.returncode is None and drain_s > 0:
                instances = await asyncio.to_thread(psutil.Process(self._child.pid).children)
                self._child.terminate()
                await self._drained(instances, drain_s + EXIT_MARGIN_S)
        except (TimeoutError, ProcessLookupError, psutil.Error):
            log.warning("triton_killed", drained_s=drain_s)
        finally:
            self.kill()
            await self._child.wait()
            await self._doors.close()
            await self.client.close()
            await self.admin.close()

    async def _drained(self, instances: Sequence[psutil.Process], timeout_s: float) -> None:
        """Until nothing is in flight any more; raises :class:`TimeoutError`.

        Triton ends its model instances, which are processes, when the last request is answered, and looks once a
        second whether they have ended. So it is not waited for longer than they run.
        """
        waits: set[asyncio.Task[object]] = {asyncio.create_task(self._child.wait())}
        if instances:
            gone = partial(psutil.wait_procs, instances, timeout_s + EXIT_MARGIN_S)
            waits.add(asyncio.create_task(asyncio.to_thread(gone)))
        done, rest = await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        if not done:
            raise TimeoutError

    async def _came_up(self) -> bool:
        """Wait for its ports; False when the process ended instead."""
        started = time.monotonic()
        while time.monotonic() - started < LIVE_TIMEOUT_S:
            if self._child.returncode is not None:
                return False
            if await self._doors.answer():
                return True
            await asyncio.sleep(0.02)
        raise EngineFailed(f"tritonserver did not listen within {LIVE_TIMEOUT_S:g} s")

    async def load_all(self, models: Sequence[Model], *, strict: bool) -> None:
        """Load models side by side.

        Args:
            models: what to load.
            strict: whether the first that does not load ends it, with the error of :meth:`load`; else it is logged.
        """
        started = time.monotonic()
        shown = [model for model in models if await self._shows(model, strict=strict)]
        loading = {asyncio.create_task(self.load(model)): model.name for model in shown}
        try:
            pending = set(loading)
            while pending:
                done, pending = await asyncio.wait(pending, timeout=PROGRESS_S, return_when=asyncio.FIRST_EXCEPTION)
                for task in done:
                    self._check_loaded(task, strict=strict)
                if not done:
                    waited = round(time.monotonic() - started, 1)
                    log.info("triton_loading", models=sorted(loading[task] for task in pending), waited_s=waited)
        finally:
            for task in loading:
                task.cancel()
            await asyncio.gather(*loading, return_exceptions=True)

    async def _shows(self, model: Model, *, strict: bool) -> bool:
        try:
            await self.show(model)
        except (BadInput, MissingDependency) as error:
            if strict:
                raise
            log.error("triton_model_not_loaded", error=str(error))
            return False
        return True

    def _check_loaded(self, task: asyncio.Task[None], *, strict: bool) -> None:
        error = task.exception()
        if error is None:
            return
        if strict or not isinstance(error, BadInput):
            raise error
        log.error("triton_model_not_loaded", error=str(error))

    async def load(self, model: Model) -> None:
        """Load a model that is in the view, and the steps of an ensemble with it.

        Raises:
            BadInput: it does not load; names its folder and what Triton said.
            EngineFailed: the server ended meanwhile.
        """
        started = time.monotonic()
        try:
            await self.admin.load(model.name, max(LOAD_TIMEOUT_S, 3 * (model.card.load_time_s or 0)))
        except ReelmeshError as error:
            if await self._has_ended(error):
                raise EngineFailed(f"tritonserver ended while it loaded {model.name}") from error
            raise BadInput(
                f"Triton cannot load the model: {error.problem}",
                field=str(model.folder),
                fix="mend the model's file or its config.pbtxt",
            ) from error
        seconds = time.monotonic() - started
        telemetry.MODEL_LOAD_SECONDS.labels(model.name, "triton").set(seconds)
        log.info("triton_model_loaded", model=model.name, seconds=round(seconds, 2))

    async def _has_ended(self, error: ReelmeshError) -> bool:
        """Whether the process is the reason: its connections break a moment before its end is known."""
        if isinstance(error, Unavailable):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._child.wait(), END_KNOWN_S)
        return self._child.returncode is not None


@dataclass(frozen=True, slots=True)
class Launch:
    """What a tritonserver is started from, the same at every restart.

    Args:
        install: which server.
        workspace: where its log and its traces go.
        options: how it runs.
    """

    install: TritonInstall
    workspace: Workspace
    options: Options


def _zombies(pid: int) -> set[int]:
    """Children that have ended and that their parent has not asked about."""
    found = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.status() == psutil.STATUS_ZOMBIE:
                    found.add(child.pid)
    return found


def _prepare(launch: Launch, folder: Path) -> dict[str, str]:
    build_backends(folder / "backends", launch.install)
    (folder / "repository").mkdir()
    programs = build_python(folder / "python", launch.install.stub) if launch.install.stub else None
    return environment(launch.install, programs, gpus=launch.options.gpus)


async def _spawn(
    command: Sequence[str], workspace: Workspace, folder: Path, variables: dict[str, str]
) -> asyncio.subprocess.Process:
    with workspace.open_log() as stream:
        return await asyncio.create_subprocess_exec(
            *command_of(*command, stack_bytes=STACK_BYTES),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            cwd=folder,
            env=variables,
        )  # fmt: skip
