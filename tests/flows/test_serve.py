"""`reelmesh serve` from first to last: readiness, refusals, deaths, draining, and nothing left behind."""

import asyncio
import hashlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc.aio
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from serving.edge.key_file import Key, add_key
from serving.protocol.keys import Grant
from tests.flows.conftest import (
    ROOT,
    STOP_S,
    Mesh,
    alive,
    announced,
    launch,
    serve,
    stop_mesh,
    tree,
    wait_until_gone,
)
from tests.flows.test_triton_clients import check, given, numbers
from tests.flows.triton_models import write_model, write_models

pytestmark = pytest.mark.timeout(300)

SOON_S = 30
IN_FLIGHT = 16


def until(holds: Callable[[], bool], within_s: float = SOON_S) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.1)


def seconds(module, value: float) -> list:
    return given(module, "FP32", SECONDS=np.array([value], dtype=np.float32))


def test_it_is_ready_when_every_model_is_and_a_killed_command_leaves_no_process(tmp_path: Path, free_ports) -> None:
    repository = write_models(tmp_path / "models", ["simple_ray"])
    write_model(repository, "slow", 'parameters { key: "load_s" value { string_value: "3" } }\n')
    http, grpc, metrics = (str(port) for port in free_ports(3))
    ports = ["--http-port", http, "--grpc-port", grpc, "--metrics-port", metrics]
    process, log = launch("serve", tmp_path / "home", "--model-repository", str(repository), *ports)
    seen: list[int] = []

    def watch() -> None:
        while process.poll() is None and 200 not in seen:
            try:
                seen.append(httpx.get(f"http://127.0.0.1:{http}/v2/health/ready", timeout=5).status_code)
            except httpx.TransportError:
                time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    mesh = announced(process, tmp_path / "home", log)
    watcher.join()
    assert set(seen) == {200, 503}
    assert httpx.get(f"{mesh.http}/v2/models/slow/ready").status_code == 200

    processes = tree(process.pid)
    assert any(one.name() == "tritonserver" for one in processes)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    wait_until_gone(processes)


def test_folders_that_come_and_go_are_followed_and_sigterm_lets_a_request_finish(tmp_path: Path) -> None:
    repository = write_models(tmp_path / "models", ["simple"])
    mesh = serve(tmp_path / "home", repository, "--model-control-mode", "poll", "--repository-poll-secs", "0.5")
    try:
        module, client = mesh.client("http")
        check(client.infer("simple", numbers(module)))
        write_models(repository, ["slow", "mlp_ray"])
        until(lambda: client.is_model_ready("slow") and client.is_model_ready("mlp_ray"))
        shutil.rmtree(repository / "simple")
        until(lambda: not client.is_model_ready("simple"))
        assert client.is_server_ready()

        processes = tree(mesh.process.pid)
        waiting = client.async_infer("slow", seconds(module, 2))
        time.sleep(0.7)
        began = time.monotonic()
        mesh.process.send_signal(signal.SIGTERM)
        assert waiting.get_result().as_numpy("SLEPT")[0] == 2
        assert mesh.process.wait(STOP_S) == 0
        assert time.monotonic() - began < 20
        assert alive(processes) == []
    finally:
        mesh.process.kill()


def test_without_triton_ray_replicas_serve_its_models_to_who_brings_a_key(tmp_path: Path) -> None:
    repository = write_models(tmp_path / "models", ["simple", "simple_string"])
    file = tmp_path / "keys.yaml"
    add_key(file, Key(hashlib.sha256(b"annas key").hexdigest(), Grant("anna", "infer", ("simple",))))
    key = {"authorization": "Bearer annas key"}
    mesh = serve(tmp_path / "home", repository, "--triton", "off", "--keys", str(file))
    try:
        assert {row["served_by"] for row in mesh.models} == {"ray"}
        assert not any(one.name() == "tritonserver" for one in tree(mesh.process.pid))
        for wire in ("http", "grpc"):
            module, client = mesh.client(wire)
            check(client.infer("simple", numbers(module), headers=dict(key)))  # tritonclient adds its own to them
            assert client.is_server_ready()
            with pytest.raises(InferenceServerException, match=r"401|UNAUTHENTICATED"):
                client.infer("simple", numbers(module))
            with pytest.raises(InferenceServerException, match=r"403|PERMISSION_DENIED"):
                client.infer("simple_string", numbers(module), headers=dict(key))
            with pytest.raises(InferenceServerException, match=r"403|PERMISSION_DENIED"):
                client.unload_model("simple", headers=dict(key))
    finally:
        assert stop_mesh(mesh) == 0


@pytest.mark.parametrize("name", ["mlp", "mlp_ray"])
def test_a_model_that_does_not_load_is_told_and_nothing_stays(tmp_path: Path, name: str) -> None:
    repository = write_models(tmp_path / "models", [name])
    (repository / name / "1" / "model.onnx").write_bytes(b"this is no ONNX file")
    flags = ["--home", str(tmp_path / "home"), "--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    command = [sys.executable, "-m", "serving.cli.main", "serve", "--model-repository", str(repository), *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    told, logs = done.stderr.strip().splitlines()[-2:]
    assert str(repository / name) in told
    assert "load" in told
    assert str(tmp_path / "home" / "logs") in logs


@dataclass
class Load:
    """Requests without a pause, and what became of them."""

    done: int = 0
    failed: list[tuple[float, str]] = field(default_factory=list)
    stop: bool = False

    async def drive(self, mesh: Mesh, module, address: str) -> None:
        async with module.InferenceServerClient(address) as client:
            tensors = numbers(module)
            while not self.stop:
                began = time.monotonic()
                try:
                    check(await client.infer("simple", tensors))
                    self.done += 1
                except Exception as error:  # whatever a client may meet counts
                    self.failed.append((began, str(error)))


@pytest.mark.parametrize("wire", ["http", "grpc"])
async def test_a_triton_that_is_killed_under_load_fails_no_request_that_had_not_reached_it(
    served: Mesh, wire: str
) -> None:
    def servers() -> list[psutil.Process]:
        return [one for one in tree(served.process.pid) if one.name() == "tritonserver"]

    def routed() -> bool:
        return 'reelmesh_edge_endpoints{model="simple",part="edge"} 2' in httpx.get(served.metrics, timeout=10).text

    module = {"http": tritonclient.http.aio, "grpc": tritonclient.grpc.aio}[wire]
    address = served.http.removeprefix("http://") if wire == "http" else served.grpc
    assert len(servers()) == 2
    load = Load()
    clients = [asyncio.create_task(load.drive(served, module, address)) for _ in range(IN_FLIGHT)]
    await asyncio.sleep(1)
    before = load.done
    servers()[0].kill()
    killed = time.monotonic()
    await asyncio.sleep(2)
    load.stop = True
    await asyncio.gather(*clients)
    late = [(round(began - killed, 3), text) for began, text in load.failed if began > killed]
    assert late == [], f"{len(late)} of {load.done} that began after the death failed"
    assert len(load.failed) <= IN_FLIGHT
    assert before > 50
    assert load.done > before + 50, "the other replica went on"
    await asyncio.to_thread(until, lambda: len(servers()) == 2 and routed())
