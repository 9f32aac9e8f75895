"""Starts a mesh for the benchmark by its own command line, times it, finds the Triton behind it, and stops
it.

The one invariant: whatever happens inside, the mesh and its children are gone afterwards.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import IO, Any, Final, NamedTuple

import psutil

from loadtests.bench.inference import Addresses

COMMAND: Final = (sys.executable, "-m", "serving.cli.main")
READY_S: Final = 120.0
STOP_S: Final = 30.0
HELP_RUNS: Final = 5


class Started(NamedTuple):
    """A mesh that answers, and the seconds from command to ready."""

    addresses: Addresses
    triton: psutil.Process | None
    ready_s: float


class NotStarted(Exception):
    """The mesh did not start; the text is what it said."""


def help_seconds() -> float:
    """Median of some runs of `reelmesh --help`, Python's start included."""
    times = []
    for _ in range(HELP_RUNS):
        started = time.perf_counter()
        subprocess.run([*reelmesh(), "--help"], check=True, capture_output=True, timeout=60)
        times.append(time.perf_counter() - started)
    return median(times)


def reelmesh() -> list[str]:
    """The command beside this Python."""
    script = Path(sys.executable).with_name("reelmesh")
    return [str(script)] if script.exists() else list(COMMAND)


@contextlib.contextmanager
def running(folder: Path, *words: str) -> Iterator[Started]:
    """A mesh of its own on free ports.

    Args:
        folder: for its home.
        words: the command that starts it and its flags; none for ``up``.

    Raises:
        NotStarted: it ended, or was not ready within :data:`READY_S` seconds.
    """
    ports = [word for name in ("http", "grpc", "metrics") for word in (f"--{name}-port", "0")]
    with tempfile.TemporaryFile("w+", dir=folder) as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            [*reelmesh(), *(words or ("up",)), "--json", "--home", str(folder / "home"), *ports],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            addresses = read_addresses(process, errors, (words or ("up",))[0])
            ready_s = time.perf_counter() - started
            yield Started(addresses, triton_of(process.pid), ready_s)
        finally:
            stop(process)


def read_addresses(process: subprocess.Popen[str], errors: IO[str], command: str = "up") -> Addresses:
    """Wait for the JSON that says that the mesh is ready."""
    timer = threading.Timer(READY_S, process.kill)
    timer.start()
    try:
        text = ""
        assert process.stdout is not None  # noqa: S101  it was asked for
        for line in process.stdout:
            text += line
            document = complete(text)
            if document is not None:
                return Addresses(document["http"], document["grpc"])
    finally:
        timer.cancel()
    errors.seek(0)
    raise NotStarted(f"`reelmesh {command}` did not become ready: {errors.read()[-800:]}")


def complete(text: str) -> dict[str, Any] | None:
    """The JSON object in ``text``; None while it is not whole."""
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def triton_of(pid: int) -> psutil.Process | None:
    """The tritonserver below a mesh; None if there is none to be seen.

    Ray's processes leave the tree of the command, so all of this user's processes younger than it are looked at.
    """
    born = psutil.Process(pid).create_time()
    for process in psutil.process_iter(["cmdline", "create_time"]):
        words = process.info["cmdline"] or []
        if words and Path(words[0]).name == "tritonserver" and process.info["create_time"] >= born:
            return process
    return None


def stop(process: subprocess.Popen[str]) -> None:
    """Ask the mesh to end as Ctrl-C does; end it by force if it does not."""
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
    _, alive = psutil.wait_procs(children, timeout=5)
    for child in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
