"""Starts what the mesh is compared with: a tritonserver of its own, and plain Ray Serve; used by loadtests.bench.

The one invariant: whatever happens inside, what was started is gone afterwards.
"""

import contextlib
import http.client
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil

from loadtests.bench.inference import Addresses
from loadtests.bench.mesh import NotStarted

READY_S: Final = 90.0
STOP_S: Final = 15.0
_OK: Final = 200


@contextlib.contextmanager
def bare_triton(like: psutil.Process, models: Sequence[str], folder: Path) -> Iterator[Addresses]:
    """A tritonserver with the arguments and the environment of the mesh's, on TCP ports of its own.

    Args:
        like: the mesh's tritonserver.
        models: those to load; it serves the repository of the mesh's.
        folder: where its output goes.

    Raises:
        NotStarted: it was not ready within :data:`READY_S` seconds.
    """
    http_port, grpc_port, metrics_port = free_ports(3)
    own = {
        "--http-address": "127.0.0.1",
        "--http-port": http_port,
        "--grpc-address": "127.0.0.1",
        "--grpc-port": grpc_port,
        "--metrics-address": "127.0.0.1",
        "--metrics-port": metrics_port,
        "--trace-config": f"triton,file={folder / 'bare-trace.json'}",
    }
    words = [_changed(word, own) for word in like.cmdline()]
    words += [f"--load-model={model}" for model in models]
    with (folder / "bare.log").open("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            words, cwd=like.cwd(), env=like.environ(), stdout=log, stderr=log, start_new_session=True
        )
        try:
            wait_until_ready(process, http_port, folder / "bare.log")
            yield Addresses(f"http://127.0.0.1:{http_port}", f"127.0.0.1:{grpc_port}")
        finally:
            end_group(process)


def _changed(word: str, own: Mapping[str, object]) -> str:
    name = word.partition("=")[0]
    if name in own:
        return f"{name}={own[name]}"
    return re.sub(r"(shm-region-prefix-name=).*", rf"\g<1>reelmesh_bench_{secrets.token_hex(4)}_", word)


@contextlib.contextmanager
def plain_ray(repository: Path, models: Sequence[str], folder: Path) -> Iterator[str]:
    """Ray Serve's own HTTP proxy with its defaults, in a Ray of its own; the URL before a model's name.

    Raises:
        NotStarted: it was not ready within :data:`READY_S` seconds.
    """
    [port] = free_ports(1)
    command = [sys.executable, "-m", "loadtests.bench.plain_ray", str(repository), str(port), *models]
    with (folder / "plain-ray.log").open("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
        timer = threading.Timer(READY_S, process.kill)
        timer.start()
        try:
            assert process.stdout is not None  # noqa: S101  it was asked for
            if not any(line.startswith("ready") for line in process.stdout):
                raise NotStarted(f"Ray Serve did not start: {_tail(folder / 'plain-ray.log')}")
            timer.cancel()
            yield f"http://127.0.0.1:{port}/"
        finally:
            timer.cancel()
            with contextlib.suppress(OSError):
                process.communicate(timeout=STOP_S)  # the end of its stdin tells it to stop
            end_group(process)


def wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait for OIP's ready; raises :class:`NotStarted`."""
    end = time.monotonic() + READY_S
    while time.monotonic() < end and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == _OK:
                return
        connection.close()
        time.sleep(0.1)
    raise NotStarted(f"tritonserver did not become ready: {_tail(log)}")


def end_group(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """End a process and all that it started."""
    for each in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, each)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _tail(log: Path) -> str:
    """The end of a log, without what it says beside errors."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    told = [line for line in lines if not re.match(r"\S+Z [IW] ", line)]
    return " ".join(" ".join(told or lines).split())[-500:]
