"""TritonProcess: one run of tritonserver, from free ports to the last signal; used by server.py.

The one invariant: after :meth:`TritonProcess.end`, or after the death of our own process, nothing it started is
left.
"""

import asyncio
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from serving import telemetry
from serving.backends.address import LOOPBACK
from serving.backends.launch import command_of
from serving.backends.triton.client import TOKEN_HEADER, TensorClient
from serving.backends.triton.install import TritonInstall
from serving.backends.triton.view import build_backends, build_python, build_repository, is_complete
from serving.backends.triton.workspace import Workspace
from serving.errors import BadInput, EngineFailed, ReelmeshError
from serving.repository.model import Model

log = structlog.get_logger()

HOST: Final = LOOPBACK
"""Where Triton shows its metrics, and its ports unless others must reach them."""
LIVE_TIMEOUT_S: Final = 20.0
LOAD_TIMEOUT_S: Final = 120.0
PROGRESS_S: Final = 2.0
PORT_TRIES: Final = 3
DRAIN_S: Final = 10.0
"""How long requests in flight may take to finish before they are cut off."""
STUB_MEMORY_BYTES: Final = 1 << 20
"""Shared memory a model instance starts with, and grows by; big tensors grow it on their own."""
STACK_BYTES: Final = 256 << 20
"""Stack of each of its threads, as address space. Triton parses JSON by recursion without a bound: with the usual 8 MiB
some 130,000 opening brackets end it (measured, 64 bytes each), with this it takes 3 million."""


class Ports(NamedTuple):
    """Where one tritonserver listens, on the loopback."""

    http: int
    grpc: int
    metrics: int


class TritonProcess:
    """A live tritonserver with its models loaded; made by :meth:`start`."""

    def __init__(self, child: asyncio.subprocess.Process, ports: Ports, client: TensorClient, host: str) -> None:
        self.ports = ports
        self._host = host
        self.client = client
        self._child = child

    @classmethod
    async def start(
        cls,
        install: TritonInstall,
        models: Sequence[Model],
        workspace: Workspace,
        folder: Path,
        *,
        gpus: int,
        host: str = HOST,
    ) -> "TritonProcess":
        """Start a server on free ports and load the models, in parallel.

        Args:
            install: which server.
            models: its share of the repository.
            workspace: where its log goes.
            folder: for this run alone, not made yet.
            gpus: how many GPUs the replica leased.
            host: address that inference is served on.

        Raises:
            BadInput: a model does not load; names its folder and what Triton said.
            EngineFailed: the server did not come up; carries the end of its log.
        """
        variables = await asyncio.to_thread(_prepare, install, models, folder, gpus=gpus)
        token = secrets.token_hex(16)
        for _ in range(PORT_TRIES):
            ports = free_ports()
            command = [str(install.binary)]
            command += server_arguments(folder, ports, workspace.shared_memory_prefix, token, gpus=gpus, host=host)
            if all(is_complete(model.config) for model in models):
                command.append("--disable-auto-complete-config")
            child = await _spawn(command, workspace, folder, variables)
            process = cls(child, ports, TensorClient(f"{host}:{ports.grpc}", token), host)
            try:
                if await process._came_up():
                    await process._load(models)
                    return process
            except BaseException:
                await process.end(drain_s=0)
                raise
            await process.end(drain_s=0)
            if all(is_free(port) for port in ports):
                break
        tail = " ".join(workspace.log_tail().split())[-200:]
        raise EngineFailed(f"tritonserver ended while it started: {tail}", fix=f"see {workspace.log_file}")

    async def wait(self) -> int:
        """Until the process has ended; its exit code."""
        return await self._child.wait()

    def kill(self) -> None:
        """End it at once, together with the processes of its model instances."""
        try:
            os.killpg(self._child.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    async def end(self, *, drain_s: float = DRAIN_S) -> None:
        """Let requests in flight finish, then end the process and all it started."""
        try:
            if self._child.returncode is None and drain_s > 0:
                self._child.terminate()
                await asyncio.wait_for(self._child.wait(), drain_s)
        except (TimeoutError, ProcessLookupError):
            log.warning("triton_killed", drained_s=drain_s)
        finally:
            self.kill()
            await self._child.wait()
            await self.client.close()

    async def _came_up(self) -> bool:
        """Wait for the gRPC port; False when the process ended instead."""
        started = time.monotonic()
        while time.monotonic() - started < LIVE_TIMEOUT_S:
            if self._child.returncode is not None:
                return False
            if await _listens(self._host, self.ports.http) and await _listens(self._host, self.ports.grpc):
                return True
            await asyncio.sleep(0.02)
        raise EngineFailed(f"tritonserver did not listen within {LIVE_TIMEOUT_S:g} s")

    async def _load(self, models: Sequence[Model]) -> None:
        started = time.monotonic()
        loading = {asyncio.create_task(self._load_one(model)): model.name for model in models}
        try:
            pending = set(loading)
            while pending:
                done, pending = await asyncio.wait(pending, timeout=PROGRESS_S, return_when=asyncio.FIRST_EXCEPTION)
                for task in done:
                    task.result()
                if not done:
                    waited = round(time.monotonic() - started, 1)
                    log.info("triton_loading", models=sorted(loading[task] for task in pending), waited_s=waited)
        finally:
            for task in loading:
                task.cancel()
            await asyncio.gather(*loading, return_exceptions=True)

    async def _load_one(self, model: Model) -> None:
        started = time.monotonic()
        try:
            await self.client.load(model.name, max(LOAD_TIMEOUT_S, 3 * (model.card.load_time_s or 0)))
        except ReelmeshError as error:
            if self._child.returncode is not None:
                raise EngineFailed(f"tritonserver ended while it loaded {model.name}") from error
            raise BadInput(
                f"Triton cannot load the model: {error.problem}",
                field=str(model.folder),
                fix="mend the model's file or its config.pbtxt",
            ) from error
        seconds = time.monotonic() - started
        telemetry.MODEL_LOAD_SECONDS.labels(model.name, "triton").set(seconds)
        log.info("triton_model_loaded", model=model.name, seconds=round(seconds, 2))


def server_arguments(
    folder: Path, ports: Ports, shared_memory_prefix: str, token: str, *, gpus: int, host: str = HOST
) -> list[str]:
    """The arguments of tritonserver.

    Model control, shared memory, tracing and log settings want the token: a client that finds the port can infer and
    look, and cannot map memory of this machine.
    """
    restricted = f"model-repository,shared-memory,trace,logging:{TOKEN_HEADER}={token}"
    return [
        f"--model-repository={folder / 'repository'}",
        f"--backend-directory={folder / 'backends'}",
        "--model-control-mode=explicit",
        f"--http-address={host}",
        f"--http-port={ports.http}",
        f"--http-restricted-api={restricted}",
        f"--grpc-address={host}",
        f"--grpc-port={ports.grpc}",
        f"--grpc-restricted-protocol={restricted}",
        f"--metrics-address={HOST}",
        f"--metrics-port={ports.metrics}",
        f"--allow-gpu-metrics={'true' if gpus else 'false'}",
        f"--backend-config=python,shm-region-prefix-name={shared_memory_prefix}",
        f"--backend-config=python,shm-default-byte-size={STUB_MEMORY_BYTES}",
        f"--exit-timeout-secs={int(DRAIN_S)}",
        "--log-format=ISO8601",
        *([] if gpus else ["--pinned-memory-pool-byte-size=0"]),
    ]


def environment(install: TritonInstall, programs: Path | None, *, gpus: int) -> dict[str, str]:
    """The environment of tritonserver; threads are bounded, as replicas share the node.

    Args:
        install: which server.
        programs: folder of the ``python3`` that the python backend's stub shall find first.
        gpus: how many GPUs the replica leased; with none, CUDA sees none.
    """
    variables = dict(os.environ) | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if install.stub is not None:
        _put_first(variables, "LD_LIBRARY_PATH", install.stub.library)
        _put_first(variables, "PATH", programs or Path(sys.executable).parent)
    if not gpus:
        variables["CUDA_VISIBLE_DEVICES"] = ""
    return variables


def _put_first(variables: dict[str, str], name: str, folder: Path) -> None:
    variables[name] = os.pathsep.join(filter(None, [str(folder), variables.get(name, "")]))


def _prepare(install: TritonInstall, models: Sequence[Model], folder: Path, *, gpus: int) -> dict[str, str]:
    build_backends(folder / "backends", install)
    build_repository(models, folder / "repository", install, gpus=gpus)
    programs = build_python(folder / "python", install.stub) if install.stub else None
    return environment(install, programs, gpus=gpus)


def free_ports() -> Ports:
    """Three ports that nobody listens on at this moment."""
    sockets = [socket.socket() for _ in Ports._fields]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return Ports(*(each.getsockname()[1] for each in sockets))
    finally:
        for each in sockets:
            each.close()


def is_free(port: int) -> bool:
    """Whether a server could listen on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


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


async def _listens(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True
