"""Loads, unloads, overrides, settings and regions of a replica, with a real tritonserver."""

import asyncio
import base64
import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from serving.backends.triton.command import HOST
from serving.backends.triton.install import TritonInstall
from serving.backends.triton.replica import TritonReplica
from serving.errors import BadInput, NotFound, Unavailable, Unsupported
from serving.protocol.control import TOKEN_HEADER, ModelState
from serving.settings import InferenceSettings, Settings
from tests.flows.triton_models import mlp, write_models

from .conftest import Make
from .edge import Edge

pytestmark = pytest.mark.asyncio(loop_scope="module")

PYTHON = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({{"name": "X", "data_type": "TYPE_FP32", "dims": [1]}})
        config.add_output({{"name": "Y", "data_type": "TYPE_FP32", "dims": [1]}})
        config.set_max_batch_size(0)
        return config

    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "X").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", array + {step})]) for array in inputs]
"""
MLP = {
    "backend": "onnxruntime",
    "max_batch_size": 2,
    "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [16]}],
    "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [16]}],
}


def settings_for(home: Path, repository: Path, **inference: Any) -> Settings:
    chosen = InferenceSettings(**{"model_control_mode": "explicit", "exit_timeout_s": 5, **inference})
    return Settings(home=home, model_repositories=[repository], inference=chosen).resolved()


async def start(settings: Settings, edge: Edge | None = None) -> TritonReplica:
    replica = TritonReplica.__new__(TritonReplica)
    await replica.__init__(settings, [], edge or Edge())  # type: ignore[misc]  # as Serve does
    return replica


def write_python(repository: Path, name: str, step: int, config: str = 'backend: "python"') -> Path:
    """A model that adds ``step``, and completes its configuration by itself."""
    (repository / name / "1").mkdir(parents=True, exist_ok=True)
    (repository / name / "1/model.py").write_text(PYTHON.format(step=step))
    (repository / name / "config.pbtxt").write_text(config)
    return repository / name


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_models(tmp_path_factory.mktemp("explicit") / "models", ["simple", "simple_ensemble", "mlp"])
    write_models(folder, ["mlp_ray", "simple_sequence"])
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def replica(triton: TritonInstall, repository: Path) -> AsyncIterator[TritonReplica]:
    current = os.environ.pop("PYTEST_CURRENT_TEST", None)  # it outlives the first test, so it is not that test's
    running = await start(settings_for(repository.parent / "home", repository, load_models=["simple"]))
    if current is not None:
        os.environ["PYTEST_CURRENT_TEST"] = current
    yield running
    await running.close()


@pytest.fixture
def edge(replica: TritonReplica) -> Edge:
    return replica._edge


async def add(replica: TritonReplica, model: str) -> float:
    """What the model makes of 1."""
    ports = replica.server.ports
    assert ports is not None
    body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1], "data": [1]}]}
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"http://{HOST}:{ports.http}/v2/models/{model}/infer", json=body)
    assert answer.status_code == 200, answer.text
    return float(answer.json()["outputs"][0]["data"][0])


async def batch(replica: TritonReplica, model: str, size: int) -> int:
    """The status of an inference of ``size`` vectors."""
    ports = replica.server.ports
    assert ports is not None
    body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [size, 16], "data": [0] * 16 * size}]}
    async with httpx.AsyncClient() as client:
        return (await client.post(f"http://{HOST}:{ports.http}/v2/models/{model}/infer", json=body)).status_code


def states(edge: Edge) -> dict[str, ModelState]:
    return {state.name: state for state in edge.beats[-1].models}


async def test_at_start_the_edge_hears_of_what_was_asked_for_alone(edge: Edge) -> None:
    first = edge.beats[0]
    assert [(endpoint.model, endpoint.straight) for endpoint in first.endpoints] == [("simple", True)]
    assert [(state.name, state.version, state.state) for state in first.models] == [("simple", "1", "READY")]
    assert first.kind == "triton" and first.control is not None


async def test_the_control_port_speaks_the_protocol(replica: TritonReplica, edge: Edge) -> None:
    control = edge.beats[-1].control
    assert control is not None
    headers = {TOKEN_HEADER: control.token}
    async with httpx.AsyncClient(base_url=f"http://{control.address}", headers=headers, timeout=30) as client:
        assert (await client.post("/v2/repository/models/mlp/load")).status_code == 200
        assert edge.ready == {"simple", "mlp"}, "the edge knows before the load returns"
        index = (await client.post("/v2/repository/index", json={"ready": True})).json()
        assert {"name": "mlp", "version": "1", "state": "READY"} in index
        assert (await client.post("/v2/repository/models/mlp/unload")).status_code == 200
        assert edge.ready == {"simple"}
        missing = await client.post("/v2/repository/models/nobody/load")
        assert missing.status_code == 404
        assert "failed to load 'nobody', failed to poll from model repository" in missing.json()["error"]


async def test_an_unloaded_model_left_the_rotation_first_and_is_told_as_unloaded(
    replica: TritonReplica, edge: Edge
) -> None:
    await replica.control.load("mlp", {})
    await replica.control.unload("mlp", dependents=False)
    assert edge.ready == {"simple"}
    state = states(edge)["mlp"]
    assert (state.state, state.reason) == ("UNAVAILABLE", "unloaded")
    assert "mlp" not in replica.server.models
    with pytest.raises(NotFound):
        await replica.control.unload("mlp", dependents=False)


async def test_a_model_added_after_the_start_is_found_and_one_changed_is_reloaded(
    replica: TritonReplica, repository: Path, edge: Edge
) -> None:
    write_python(repository, "added", 1)
    await replica.control.load("added", {})
    assert await add(replica, "added") == 2
    write_python(repository, "added", 5)
    await replica.control.load("added", {})
    assert await add(replica, "added") == 6
    await replica.control.unload("added", dependents=False)


async def test_a_load_that_fails_leaves_the_old_version_serving_and_says_why(
    replica: TritonReplica, repository: Path, edge: Edge
) -> None:
    folder = write_python(repository, "fragile", 1)
    await replica.control.load("fragile", {})
    (folder / "1/model.py").write_text("raise ValueError('spilled')")
    with pytest.raises(BadInput, match="spilled"):
        await replica.control.load("fragile", {})
    assert await add(replica, "fragile") == 2
    assert "fragile" in edge.ready
    assert states(edge)["fragile"].state == "READY" and "spilled" in states(edge)["fragile"].reason
    (folder / "config.pbtxt").write_text("max_batch_size: many")
    with pytest.raises(BadInput, match="max_batch_size"):
        await replica.control.load("fragile", {})
    assert await add(replica, "fragile") == 2
    write_python(repository, "fragile", 3)
    await replica.control.load("fragile", {})
    assert await add(replica, "fragile") == 4
    assert states(edge)["fragile"].reason == ""
    await replica.control.unload("fragile", dependents=False)


async def test_what_never_loaded_is_told_with_the_reason(replica: TritonReplica, repository: Path, edge: Edge) -> None:
    folder = write_python(repository, "broken", 1)
    (folder / "1/model.py").write_text("raise ValueError('never')")
    with pytest.raises(BadInput, match="never"):
        await replica.control.load("broken", {})
    assert states(edge)["broken"].state == "UNAVAILABLE" and "never" in states(edge)["broken"].reason
    await replica.control.unload("broken", dependents=False)
    assert states(edge)["broken"].reason == "unloaded"
    shutil.rmtree(folder)


async def test_an_unknown_backend_is_the_models_fault_and_told_as_such(
    replica: TritonReplica, repository: Path, edge: Edge
) -> None:
    folder = write_python(repository, "misspelt", 1)
    (folder / "1/model.py").write_text("import jsn")
    (folder / "1/model.plan").write_text("")
    with pytest.raises(BadInput, match="No module named 'jsn'"):
        await replica.control.load("misspelt", {})
    for backend, problem in (("pyton", "did you mean 'python'?"), ("tensorrt", "is not in this install")):
        (folder / "config.pbtxt").write_text(f'backend: "{backend}"')
        with pytest.raises(BadInput, match=re.escape(problem)):
            await replica.control.load("misspelt", {})
        assert problem in states(edge)["misspelt"].reason, "what Triton said of the load before is outdated"
    await replica.control.unload("misspelt", dependents=False)
    shutil.rmtree(folder)


async def test_a_model_with_an_unknown_backend_keeps_no_other_from_coming_back(
    triton: TritonInstall, tmp_path: Path
) -> None:
    write_python(tmp_path / "models", "sound", 1)
    write_python(tmp_path / "models", "misspelt", 1, 'backend: "pyton"')
    replica = await start(settings_for(tmp_path / "home", tmp_path / "models", load_models=["sound"]))
    try:
        with pytest.raises(BadInput, match="no backend 'pyton'"):
            await replica.control.load("misspelt", {})
        assert replica.server._process is not None
        replica.server._process.kill()
        async with asyncio.timeout(20):
            while not replica.server.restarts:  # noqa: ASYNC110 - what is waited for happens in other processes
                await asyncio.sleep(0.05)
        assert await add(replica, "sound") == 2
        told = {state.name: state.reason for state in await replica.control.index()}
        assert "no backend 'pyton'" in told["misspelt"]
        assert not list((tmp_path / "models").rglob("__pycache__")), "the repository is left as it was"
    finally:
        await replica.close()


async def test_another_kind_of_replicas_model_is_not_found_here(replica: TritonReplica, edge: Edge) -> None:
    with pytest.raises(NotFound, match="no Triton replica serves 'mlp_ray'"):
        await replica.control.load("mlp_ray", {})
    files = {"config": json.dumps({**MLP, "backend": "ray"}), "file:1/model.onnx": encoded(b"x")}
    with pytest.raises(NotFound, match="no Triton replica serves 'sent'"):
        await replica.control.load("sent", files)
    assert "mlp_ray" not in states(edge)


async def test_a_configuration_in_the_call_holds_until_the_next_load(replica: TritonReplica) -> None:
    await replica.control.load("mlp", {"config": json.dumps(MLP)})
    assert [await batch(replica, "mlp", size) for size in (2, 3)] == [200, 400]
    await replica.control.load("mlp", {})
    assert [await batch(replica, "mlp", size) for size in (2, 3)] == [200, 200]
    await replica.control.unload("mlp", dependents=False)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def test_a_model_may_be_made_of_overrides_alone(replica: TritonReplica, edge: Edge) -> None:
    files = {"config": json.dumps(MLP), "file:1/model.onnx": encoded(mlp().SerializeToString())}
    await replica.control.load("sent", files)
    assert await batch(replica, "sent", 2) == 200
    assert states(edge)["sent"].state == "READY"
    with pytest.raises(BadInput, match=r"cannot load 'model\.onnx'"):
        await replica.control.load("sent", files | {"file:1/model.onnx": encoded(b"no model")})
    assert await batch(replica, "sent", 2) == 200
    kept = replica.server.scratch / "overrides/sent"
    assert len(list(kept.iterdir())) == 1
    await replica.control.unload("sent", dependents=False)
    assert list(kept.iterdir()) == []


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"file:1/model.onnx": "eA=="}, "requires the parameter 'config'"),
        ({"config": "{}", "file:../model.onnx": "eA=="}, "VERSION/FILE"),
        ({"config": "{}", "file:/etc/model.onnx": "eA=="}, "VERSION/FILE"),
        ({"config": "{}", "file:1//model.onnx": "eA=="}, "VERSION/FILE"),
        ({"config": "{}", "file:1/model.onnx": "!" * 256}, "is not base64"),
        ({"config": "{}", "file:1/model.onnx": 7}, "must be base64 text"),
        ({"config": "{}", f"file:1/{'x' * 300}": "eA=="}, "longer than 256 characters"),
        ({"config": "{}", "file:" + "a/" * 1000 + "b": "eA=="}, "longer than 256 characters or 16 parts"),
        ({"config": "{}", "file:1/x": "", "file:1/x/y": ""}, "cannot be written"),
        ({"config": "{}"} | {f"file:1/{number}": "" for number in range(257)}, "257 files, more than 256"),
        ({"colour": "red"}, "unrecognized parameter 'colour'"),
        ({"config": "{"}, "not valid JSON"),
        ({"config": '{"input": ' + "[" * 100_000}, "nested more than 64 deep"),
        ({"config": '{"max_batch_size": "many"}'}, "max_batch_size"),
        ({"config": '{"name": "other"}'}, "the configuration is of 'other'"),
        ({"config": 5}, "must be a string of JSON"),
    ],
)
async def test_an_override_that_is_wrong_is_refused_with_its_name(
    replica: TritonReplica, parameters: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        await replica.control.load("simple", parameters)
    assert str(caught.value).startswith("parameters.")
    assert replica.server.restarts == 0
    assert not list(replica.server.scratch.glob("overrides/*/*"))


async def test_an_ensemble_is_loaded_with_its_steps_and_unloaded_with_them_on_request(
    replica: TritonReplica, edge: Edge
) -> None:
    await replica.control.unload("simple", dependents=False)
    await replica.control.load("simple_ensemble", {})
    assert edge.ready == {"simple", "simple_ensemble"}
    await replica.control.unload("simple_ensemble", dependents=True)
    assert edge.ready == set()
    assert replica.server.models == {}
    await replica.control.load("simple", {})


async def test_versions_and_files_beside_the_model_are_there_as_the_folder_has_them(
    replica: TritonReplica, repository: Path, edge: Edge
) -> None:
    folder = write_python(repository, "versions", 1, 'backend: "python" version_policy { all {} }')
    (folder / "extra").mkdir()
    (folder / "extra/step.txt").write_text("30")
    shutil.copytree(folder / "1", folder / "2")
    read = "float((__import__('pathlib').Path(__file__).parent.parent / 'extra/step.txt').read_text())"
    (folder / "2/model.py").write_text(PYTHON.format(step=read))
    await replica.control.load("versions", {})
    told = [(state.version, state.state) for state in edge.beats[-1].models if state.name == "versions"]
    assert told == [("1", "READY"), ("2", "READY")]
    assert [endpoint.model for endpoint in edge.beats[-1].endpoints] == ["simple", "versions"]
    assert await add(replica, "versions") == 31
    assert await add(replica, "versions/versions/1") == 2
    await replica.control.unload("versions", dependents=False)


async def test_a_sequence_model_is_kept_off_the_straight_way(replica: TritonReplica, edge: Edge) -> None:
    await replica.control.load("simple_sequence", {})
    straight = {endpoint.model: endpoint.straight for endpoint in edge.beats[-1].endpoints}
    assert straight == {"simple": True, "simple_sequence": False}
    await replica.control.unload("simple_sequence", dependents=False)


async def test_log_settings_are_read_and_changed_but_never_the_files_place(replica: TritonReplica) -> None:
    assert (await replica.control.log_settings({}))["log_verbose_level"] == 0
    assert (await replica.control.log_settings({"log_verbose_level": 1}))["log_verbose_level"] == 1
    await replica.control.log_settings({"log_verbose_level": 0})
    with pytest.raises(Unsupported, match="log file location can not be updated through network protocol"):
        await replica.control.log_settings({"log_file": "/tmp/stolen"})
    with pytest.raises(BadInput, match="non-boolean"):
        await replica.control.log_settings({"log_info": "yes"})


async def test_trace_settings_are_read_and_changed_but_never_the_files_place(replica: TritonReplica) -> None:
    assert (await replica.control.trace_settings("", {}))["trace_level"] == ["OFF"]
    changed = await replica.control.trace_settings("simple", {"trace_level": ["TIMESTAMPS"], "trace_rate": "7"})
    assert (changed["trace_level"], changed["trace_rate"]) == (["TIMESTAMPS"], "7")
    assert (await replica.control.trace_settings("", {}))["trace_level"] == ["OFF"]
    cleared = await replica.control.trace_settings("simple", {"trace_level": None, "trace_rate": None})
    assert cleared["trace_level"] == ["OFF"]
    with pytest.raises(Unsupported, match="trace file location can not be updated through network protocol"):
        await replica.control.trace_settings("", {"trace_file": "/tmp/stolen"})
    with pytest.raises(NotFound, match="Request for unknown model : nobody"):
        await replica.control.trace_settings("nobody", {})


async def test_a_region_is_registered_told_and_let_go(replica: TritonReplica, shared: Make) -> None:
    key = shared("one", 8192)
    body = {"key": key, "offset": 4096, "byte_size": 48}
    await replica.control.register_region("system", "r", body)
    assert await replica.control.regions("system", "r") == [{"name": "r", **body}]
    with pytest.raises(BadInput, match="already in manager"):
        await replica.control.register_region("system", "r", body)
    await replica.control.unregister_region("system", "r")
    with pytest.raises(NotFound, match="Unable to find system shared memory region: 'r'"):
        await replica.control.regions("system", "r")
    with pytest.raises(BadInput, match="region name 'r/1'"):
        await replica.control.register_region("system", "r/1", body)
    await replica.control.register_region("system", "r2", body)
    await replica.control.unregister_region("system", "")
    assert await replica.control.regions("system", "") == []


async def test_without_a_gpu_cuda_regions_are_unsupported(replica: TritonReplica) -> None:
    with pytest.raises(Unsupported, match="failed to register CUDA shared memory region: 'r', GPUs not supported"):
        await replica.control.register_region("cuda", "r", {"byte_size": 1})
    assert await replica.control.regions("cuda", "") == []


async def test_where_models_are_not_controlled_explicitly_clients_may_not_load(
    triton: TritonInstall, tmp_path: Path
) -> None:
    repository = write_models(tmp_path / "models", ["mlp"])
    replica = await start(settings_for(tmp_path / "home", repository, model_control_mode="none"))
    try:
        for call in (replica.control.load("mlp", {}), replica.control.unload("mlp", dependents=False)):
            with pytest.raises(Unavailable, match="explicit model load / unload is not allowed if polling is enabled"):
                await call
        assert await batch(replica, "mlp", 1) == 200
    finally:
        await replica.close()
