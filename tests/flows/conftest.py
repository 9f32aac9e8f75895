"""One running mesh for all flows: the real command in a process of its own, on free ports, with a home of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import tritonclient.grpc
import tritonclient.http

from tests.flows.triton_models import write_models

ROOT = Path(__file__).resolve().parents[2]
READY_S = 180
STOP_S = 60
GONE_S = 30


@dataclass(frozen=True)
class Mesh:
    """Where the mesh listens; ``process`` is the command itself."""

    http: str
    grpc: str
    metrics: str
    home: Path
    process: subprocess.Popen[str]
    models: list[dict[str, Any]] = field(default_factory=list)

    def client(self, wire: str) -> tuple[Any, Any]:
        """tritonclient's module for a wire, ``http`` or ``grpc``, and a client of it."""
        if wire == "http":
            client = tritonclient.http.InferenceServerClient(self.http.removeprefix("http://"), concurrency=8)
            return tritonclient.http, client
        return tritonclient.grpc, tritonclient.grpc.InferenceServerClient(self.grpc)


def launch(command: str, home: Path, *flags: str) -> tuple[subprocess.Popen[str], Path]:
    """Start `reelmesh up` or `serve` on free ports unless flags name others; the process, and where it logs."""
    # The process check tells processes apart by this variable; the mesh belongs to all flows, not to the first one.
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    # A run that is killed takes its mesh with it.
    words = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "serving.cli.main", command, "--json"]
    ports = [word for name in ("http", "grpc", "metrics") for word in (f"--{name}-port", "0")]
    home.parent.mkdir(parents=True, exist_ok=True)
    log = home.parent / f"{home.name}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*words, "--home", str(home), *ports, *flags],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    return process, log


def announced(process: subprocess.Popen[str], home: Path, log: Path) -> Mesh:
    """The mesh, once the command says where it listens."""
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line.startswith("}"):
            break
    process.stdout.close()
    if not text:
        process.wait(STOP_S)
        raise AssertionError(f"the mesh did not start: {log.read_text()[-2000:]}")
    told = json.loads(text)
    return Mesh(told["http"], told["grpc"], told["metrics"], home, process, told.get("models", []))


def start_mesh(home: Path, *flags: str, command: str = "up") -> Mesh:
    """Start a mesh and wait until it prints its addresses."""
    process, log = launch(command, home, *flags)
    return announced(process, home, log)


def serve(home: Path, repository: Path, *flags: str) -> Mesh:
    """`reelmesh serve` of a repository, ready."""
    return start_mesh(home, "--model-repository", str(repository), *flags, command="serve")


def stop_mesh(mesh: Mesh) -> int:
    """Stop it as Ctrl-C does and return its exit code."""
    mesh.process.send_signal(signal.SIGINT)
    try:
        return mesh.process.wait(STOP_S)
    finally:
        mesh.process.kill()


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """The mesh that all flows share."""
    running = start_mesh(tmp_path_factory.mktemp("mesh") / "home")
    yield running
    assert stop_mesh(running) == 0


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """`reelmesh serve` of the Triton repository and its twins for Ray, two replicas of each; all flows share it."""
    folder = tmp_path_factory.mktemp("serve")
    repository = write_models(folder / "models")
    running = serve(folder / "home", repository, "--replicas", "simple=2", "--replicas", "simple_ray=2")
    yield running
    assert stop_mesh(running) == 0


def tree(pid: int) -> list[psutil.Process]:
    """Every process below one."""
    return psutil.Process(pid).children(recursive=True)


def alive(processes: list[psutil.Process]) -> list[str]:
    """The command lines of those that still run."""
    left = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                left.append(" ".join(process.cmdline())[:80])
        except psutil.NoSuchProcess:
            continue
    return left


def wait_until_gone(processes: list[psutil.Process]) -> None:
    """Fail unless all of them end soon."""
    deadline = time.monotonic() + GONE_S
    while alive(processes) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert alive(processes) == []
