"""Triton's model control examples against `reelmesh serve --model-control-mode explicit`, for both kinds of replica."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from tritonclient.utils import InferenceServerException

from tests.flows.conftest import Mesh, serve, stop_mesh, tree
from tests.flows.test_triton_clients import check, given, named, numbers
from tests.flows.triton_models import mlp, write_models

pytestmark = [pytest.mark.timeout(200), pytest.mark.parametrize("kind", ["triton", "ray"])]
WIRES = pytest.mark.parametrize("wire", ["http", "grpc"])

GONE = r"unknown model|not found|not ready|no available versions"


@pytest.fixture(scope="module")
def explicit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """Two replicas of each kind; of the repository's models two are loaded at start, and one folder is broken.

    Whatever the tests load, the repository itself is never written to.
    """
    folder = tmp_path_factory.mktemp("explicit")
    names = ["simple", "simple_ray", "mlp", "mlp_ray", "simple_ensemble", "simple_string", "simple_string_ray"]
    repository = write_models(folder / "models", names)
    (repository / "broken").mkdir()
    (repository / "broken" / "config.pbtxt").write_text("max_batch_size: many")
    before = contents(repository)
    flags = ["--model-control-mode", "explicit", "--load-model", "simple", "--load-model", "simple_ray"]
    running = serve(folder / "home", repository, *flags, "--replicas", "mlp=2", "--replicas", "mlp_ray=2")
    yield running
    assert stop_mesh(running) == 0
    assert contents(repository) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def states(client: Any, wire: str) -> dict[str, str]:
    index = client.get_model_repository_index(**({} if wire == "http" else {"as_json": True}))
    return {row["name"]: row.get("state", "") for row in (index if wire == "http" else index["models"])}


def vectors(module: Any, size: int = 1) -> list[Any]:
    return given(module, "FP32", X=np.ones((size, 16), np.float32))


@WIRES
def test_only_what_was_asked_for_is_loaded_at_start(explicit: Mesh, wire: str, kind: str) -> None:
    module, client = explicit.client(wire)
    assert client.is_server_ready()
    found = states(client, wire)
    assert found[named("simple", kind)] == "READY"
    assert found[named("simple_string", kind)] in {"", "UNAVAILABLE"}
    check(client.infer(named("simple", kind), numbers(module)))
    with pytest.raises(InferenceServerException, match=GONE):
        client.infer(named("simple_string", kind), given(module, "BYTES", INPUT0=np.array([[b"1"] * 16], np.object_)))


@WIRES
def test_a_model_is_loaded_and_unloaded_on_every_replica(explicit: Mesh, wire: str, kind: str) -> None:
    module, client = explicit.client(wire)
    model = named("mlp", kind)
    for _ in range(2):
        client.load_model(model)
        assert client.is_model_ready(model)
        assert states(client, wire)[model] == "READY"
        for _ in range(8):
            client.infer(model, vectors(module))
        client.unload_model(model)
        assert not client.is_model_ready(model)
        assert states(client, wire)[model] == "UNAVAILABLE"
        for _ in range(8):
            with pytest.raises(InferenceServerException, match=GONE):
                client.infer(model, vectors(module))
    assert client.is_server_ready(), "what was unloaded on purpose is not missing"


@WIRES
def test_the_configuration_may_be_replaced_by_the_call(explicit: Mesh, wire: str, kind: str) -> None:
    module, client = explicit.client(wire)
    model = named("mlp", kind)
    client.load_model(model, config=json.dumps({**config(kind), "max_batch_size": 2}))
    for _ in range(4):
        client.infer(model, vectors(module, 2))
        with pytest.raises(InferenceServerException, match="batch-size must be <= 2"):
            client.infer(model, vectors(module, 3))
    client.load_model(model)
    client.infer(model, vectors(module, 3))
    client.unload_model(model)


def config(kind: str) -> dict[str, Any]:
    return {
        "backend": "onnxruntime" if kind == "triton" else "ray",
        "max_batch_size": 16,
        "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [16]}],
        "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [16]}],
    }


@WIRES
def test_the_files_may_come_with_the_call(explicit: Mesh, wire: str, kind: str) -> None:
    module, client = explicit.client(wire)
    model = f"sent_{kind}_{wire}"
    client.load_model(model, config=json.dumps(config(kind)), files={"file:1/model.onnx": mlp().SerializeToString()})
    for _ in range(4):
        client.infer(model, vectors(module))
    client.unload_model(model)
    with pytest.raises(InferenceServerException, match=GONE):
        client.infer(model, vectors(module))


@WIRES
def test_what_cannot_be_loaded_is_told_and_harms_nothing(explicit: Mesh, wire: str, kind: str) -> None:
    module, client = explicit.client(wire)
    with pytest.raises(InferenceServerException, match="'nobody', failed to poll from model repository"):
        client.load_model("nobody")
    with pytest.raises(InferenceServerException, match=r"max_batch_size|config"):
        client.load_model("broken")
    for path in ("file:../../evil.py", "file:/evil.py"):
        with pytest.raises(InferenceServerException):
            client.load_model(named("mlp", kind), config=json.dumps(config(kind)), files={path: b"x"})
    with pytest.raises(InferenceServerException, match="config"):
        client.load_model(named("simple", kind), config="{not json")
    check(client.infer(named("simple", kind), numbers(module)))
    client.unload_model("broken")
    assert client.is_server_ready(), "what failed is missed only until nobody wants it any more"


@WIRES
def test_dependents_are_unloaded_where_that_is_asked_for(explicit: Mesh, wire: str, kind: str) -> None:
    module, client = explicit.client(wire)
    if kind == "ray":  # ensembles are Triton's; a model without dependents takes the flag all the same
        client.load_model("mlp_ray")
        client.unload_model("mlp_ray", unload_dependents=True)
        assert not client.is_model_ready("mlp_ray")
        return
    client.unload_model("simple")
    client.load_model("simple_ensemble")
    assert states(client, wire)["simple"] == "READY", "an ensemble brings the models it is made of"
    client.infer("simple_ensemble", numbers(module))
    client.unload_model("simple_ensemble", unload_dependents=True)
    assert states(client, wire)["simple"] == "UNAVAILABLE"
    client.load_model("simple")
    check(client.infer("simple", numbers(module)))


def test_what_was_loaded_outlives_the_server_that_loaded_it(explicit: Mesh, kind: str) -> None:
    module, client = explicit.client("grpc")
    model = named("mlp", kind)
    client.load_model(model, config=json.dumps({**config(kind), "max_batch_size": 2}))
    if kind == "triton":
        servers = [one for one in tree(explicit.process.pid) if one.name() == "tritonserver"]
        assert len(servers) == 2
        for server in servers:
            server.kill()
        psutil.wait_procs(servers, timeout=10)
    deadline = time.monotonic() + 40
    while not client.is_model_ready(model):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    client.infer(model, vectors(module, 2))
    with pytest.raises(InferenceServerException, match="batch-size must be <= 2"):
        client.infer(model, vectors(module, 3))
    until_all_answer(explicit, 2 if kind == "triton" else 1)
    client.unload_model(model)


def until_all_answer(mesh: Mesh, servers: int) -> None:
    """Both replicas are back, so that the next test finds what it expects."""
    deadline = time.monotonic() + 40
    line = 'reelmesh_edge_endpoints{model="simple",part="edge"} 2'
    while servers == 2 and line not in httpx.get(mesh.metrics, timeout=10).text:
        assert time.monotonic() < deadline
        time.sleep(0.2)
