"""One running mesh for all flows: the real command in a process of its own, on free ports, with a home of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
READY_S = 180
STOP_S = 60


@dataclass(frozen=True)
class Mesh:
    """Where the mesh listens; ``process`` is the command itself."""

    http: str
    grpc: str
    metrics: str
    home: Path
    process: subprocess.Popen[str]


def start_mesh(home: Path, *flags: str) -> Mesh:
    """Start `reelmesh up` and wait until it prints its addresses."""
    # The process check tells processes apart by this variable; the mesh belongs to all flows, not to the first one.
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    # A run that is killed takes its mesh with it.
    command = [
        "setpriv",
        "--pdeathsig",
        "TERM",
        sys.executable,
        "-m",
        "serving.cli.main",
        "up",
        "--json",
        "--home",
        str(home),
    ]
    ports = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    errors = (home.parent / f"{home.name}.log").open("w")
    process = subprocess.Popen(
        [*command, *ports, *flags], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
    )
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line.startswith("}"):
            break
    process.stdout.close()
    errors.close()
    if not text:
        process.wait(STOP_S)
        raise AssertionError(f"the mesh did not start: {Path(errors.name).read_text()[-2000:]}")
    addresses = json.loads(text)
    return Mesh(addresses["http"], addresses["grpc"], addresses["metrics"], home, process)


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
