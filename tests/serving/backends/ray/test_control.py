"""The control port of a Ray replica."""

import asyncio
import base64
import json
from multiprocessing import shared_memory

import httpx
import numpy as np
import pytest
import tritonclient.grpc.aio as triton_grpc
import tritonclient.http.aio as triton_http
from tritonclient.utils import InferenceServerException

from serving.errors import Unavailable
from serving.protocol.control import ControlCall
from tests.serving.backends.ray.standing import FakeEdge, repository, settings_of, standing
from tests.serving.backends.ray.tensor_models import MODELS

CONFIG = {
    "backend": "ray",
    "max_batch_size": 2,
    "input": [{"name": "TEXT", "data_type": "TYPE_STRING", "dims": [-1]}],
    "output": [{"name": "TEXT", "data_type": "TYPE_STRING", "dims": [-1]}],
}


def pair(kind, left, right):
    tensors = []
    for name, values in (("INPUT0", left), ("INPUT1", right)):
        tensors.append(kind.InferInput(name, [1, 4], "FP32"))
        tensors[-1].set_data_from_numpy(np.array([values], np.float32))
    return tensors


@pytest.fixture
async def explicit(tmp_path):
    repository(tmp_path / "models", "add_sub", "strings", "accumulate")
    async with standing(settings_of(tmp_path, model_control_mode="explicit", load_models=["add_sub"])) as stands:
        yield stands


async def test_models_come_and_go_and_the_edge_hears_of_it(explicit):
    assert explicit.edge.names == ["add_sub"]
    assert (await explicit.load("strings")).status_code == 200
    assert explicit.edge.names == ["add_sub", "strings"]
    assert await explicit.index() == {
        "accumulate": ("UNAVAILABLE", ""),
        "add_sub": ("READY", ""),
        "strings": ("READY", ""),
    }
    before = len(explicit.edge.beats)
    assert (await explicit.unload("add_sub")).status_code == 200
    assert all(endpoint.model != "add_sub" for beat in explicit.edge.beats[before:] for endpoint in beat.endpoints)
    assert (await explicit.index())["add_sub"] == ("UNAVAILABLE", "unloaded")
    metrics = (await explicit.control.get("/metrics")).text
    assert 'queue_depth{queue="strings"}' in metrics and 'queue_depth{queue="add_sub"}' not in metrics
    assert (await explicit.load("add_sub")).status_code == 200
    assert explicit.edge.names == ["add_sub", "strings"]


async def test_a_sequence_model_is_not_reached_straight(explicit):
    await explicit.load("accumulate")
    straight = {endpoint.model: endpoint.straight for endpoint in explicit.edge.beats[-1].endpoints}
    assert straight == {"add_sub": True, "accumulate": False}


async def test_a_loaded_model_answers_by_both_wires(explicit):
    for kind, address in ((triton_http, explicit.http_address), (triton_grpc, explicit.grpc_address)):
        async with kind.InferenceServerClient(address) as client:
            result = await client.infer("add_sub", pair(kind, [1, 2, 3, 4], [1, 1, 1, 1]))
            assert result.as_numpy("OUTPUT0").tolist() == [[2, 3, 4, 5]]


async def test_a_model_is_loaded_with_another_config(explicit):
    await explicit.load("strings", config=json.dumps(CONFIG))
    async with triton_http.InferenceServerClient(explicit.http_address) as client:
        assert (await client.get_model_config("strings"))["max_batch_size"] == 2
        await explicit.load("strings")
        assert (await client.get_model_config("strings"))["max_batch_size"] == 4


async def test_a_model_is_made_of_files_alone(explicit):
    files = {
        f"file:3/{path.name}": base64.b64encode(path.read_bytes()).decode() for path in MODELS.glob("strings/1/*.py")
    }
    answer = await explicit.load("newcomer", config=json.dumps(CONFIG), **files)
    assert answer.status_code == 200, answer.text
    async with triton_http.InferenceServerClient(explicit.http_address) as client:
        assert (await client.get_model_metadata("newcomer"))["versions"] == ["3"]
        text = triton_http.InferInput("TEXT", [1, 1], "BYTES")
        text.set_data_from_numpy(np.array([[b"hi"]], object))
        assert (await client.infer("newcomer", [text])).as_numpy("TEXT").tolist() == [[b"hi"]]


BAD_LOADS = {
    "unknown": ("nobody", {}, 404, "failed to load 'nobody', failed to poll from model repository"),
    "traversal": ("%2e%2e", {}, 404, "failed to load '..', failed to poll from model repository"),
    "deep-traversal": ("..%2f..%2fetc", {}, 404, "Not Found"),
    "parameter": ("strings", {"colour": "red"}, 400, "unrecognized parameter 'colour'"),
    "config-number": ("strings", {"config": 7}, 400, "must be a string of JSON"),
    "config-text": ("strings", {"config": "{"}, 400, "config"),
    "config-deep": ("strings", {"config": "[" * 100_000}, 400, "nested"),
    "config-field": ("strings", {"config": '{"colour": 1}'}, 400, "colour"),
    "config-name": ("strings", {"config": '{"name": "other"}'}, 400, "'other'"),
    "file-alone": ("strings", {"file:1/model.py": ""}, 400, "requires the parameter 'config'"),
    "file-up": ("strings", {"config": "{}", "file:../x": ""}, 400, "VERSION/FILE"),
    "file-inner-up": ("strings", {"config": "{}", "file:1/../../x": ""}, 400, "VERSION/FILE"),
    "file-absolute": ("strings", {"config": "{}", "file:/etc/x": ""}, 400, "VERSION/FILE"),
    "file-null": ("strings", {"config": "{}", "file:1/a\0b": ""}, 400, "VERSION/FILE"),
    "file-base64": ("strings", {"config": "{}", "file:1/model.py": "?" * 256}, 400, "is not base64"),
    "file-number": ("strings", {"config": "{}", "file:1/model.py": 1}, 400, "must be base64 text"),
    "file-no-engine": ("strings", {"config": "{}", "file:1/readme.md": "aGk="}, 400, "no version folder holds a file"),
    "file-syntax": ("strings", {"config": '{"backend": "ray"}', "file:1/model.py": "ZGVm"}, 400, "SyntaxError"),
}


@pytest.mark.parametrize(("name", "parameters", "status", "problem"), BAD_LOADS.values(), ids=BAD_LOADS.keys())
async def test_a_bad_load_is_refused_and_what_served_goes_on(explicit, name, parameters, status, problem):
    await explicit.load("strings")
    answer = await explicit.load(name, **parameters)
    assert (answer.status_code, problem in answer.text) == (status, True), answer.text
    assert (await explicit.index())["strings"][0] == "READY"


async def test_a_config_that_cannot_wait_in_line_is_refused_and_leaves_nothing_behind(explicit):
    wrong = {**CONFIG, "dynamic_batching": {"preferred_batch_size": [100]}}
    answer = await explicit.load("strings", config=json.dumps(wrong))
    assert (answer.status_code, "preferred size must be positive" in answer.text) == (400, True)
    state, reason = (await explicit.index())["strings"]
    assert state == "UNAVAILABLE" and "preferred size" in reason
    assert (await explicit.load("strings")).status_code == 200
    assert (await explicit.load("strings", config=json.dumps(wrong))).status_code == 400
    assert explicit.edge.names == ["add_sub", "strings"]


async def test_files_of_loads_are_removed_but_those_in_use(explicit, tmp_path):
    files = {"file:1/model.py": base64.b64encode((MODELS / "strings/1/model.py").read_bytes()).decode(),
             "file:1/helper.py": base64.b64encode((MODELS / "strings/1/helper.py").read_bytes()).decode()}  # fmt: skip
    for broken in ({}, {}, {"file:1/model.py": "ZGVm"}):
        await explicit.load("sent", config=json.dumps(CONFIG), **(files | broken))
    assert "sent" in explicit.edge.names
    assert len(list((tmp_path / "home/scratch").glob("*/overrides/sent/*"))) == 1
    await explicit.unload("sent")
    assert not list((tmp_path / "home/scratch").glob("*/overrides/sent/*"))


async def test_a_new_model_needs_a_name_that_stands_in_an_address(explicit):
    files = {"file:1/model.py": "", "config": json.dumps(CONFIG)}
    for name in ("x" * 200, "a%20b", "%0a", "..."):
        answer = await explicit.load(name, **files)
        assert (answer.status_code, "cannot stand in an address" in answer.text) == (400, True), answer.text
    assert set(await explicit.index()) == {"accumulate", "add_sub", "strings"}


async def test_a_model_that_does_not_load_says_why_in_the_index(tmp_path):
    models = repository(tmp_path / "models", "strings", "add_sub")
    (models / "strings/1/model.py").write_text("raise RuntimeError('out of luck')")
    async with standing(settings_of(tmp_path, model_control_mode="explicit", load_models=["*"])) as stands:
        state, reason = (await stands.index())["strings"]
        assert state == "UNAVAILABLE"
        assert "RuntimeError: out of luck" in reason
        assert stands.edge.names == ["add_sub"]


async def test_without_explicit_control_nobody_loads_from_outside(tmp_path):
    repository(tmp_path / "models", "strings")
    async with standing(settings_of(tmp_path)) as stands:
        for call in (stands.load, stands.unload):
            answer = await call("strings")
            assert answer.status_code == 503
            assert "explicit model load / unload is not allowed if polling is enabled" in answer.json()["error"]
        assert stands.edge.names == ["strings"]


async def test_polling_follows_the_folders(tmp_path):
    models = repository(tmp_path / "models", "strings")
    async with standing(settings_of(tmp_path, model_control_mode="poll", repository_poll_s=0.05)) as stands:
        repository(models, "add_sub")
        await until(lambda: stands.edge.names == ["add_sub", "strings"])
        for file in sorted((models / "strings").rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        (models / "strings").rmdir()
        await until(lambda: stands.edge.names == ["add_sub"])
        async with asyncio.timeout(10):
            while "strings" in await stands.index():  # noqa: ASYNC110  as above
                await asyncio.sleep(0.02)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  what is waited for is told by nobody
            await asyncio.sleep(0.02)


@pytest.fixture
def block():
    made = shared_memory.SharedMemory(create=True, size=1 << 12)
    yield made
    made.close()
    made.unlink()


async def test_a_later_replica_repeats_what_was_asked_of_all(tmp_path, block):
    repository(tmp_path / "models", "add_sub", "strings")
    region = {"key": block.name, "offset": 0, "byte_size": 16}
    parameters = {"config": json.dumps(CONFIG)}
    calls = [
        ControlCall(key="model/add_sub", path="/v2/repository/models/add_sub/unload"),
        ControlCall(
            key="model/strings",
            path="/v2/repository/models/strings/load",
            body={"parameters": parameters},
        ),
        ControlCall(key="model/gone", path="/v2/repository/models/gone/load"),
        ControlCall(key="system/r", path="/v2/systemsharedmemory/region/r/register", body=region),
        ControlCall(key="system/q", path="/v2/systemsharedmemory/region/q/register", body={"key": "nowhere"}),
        ControlCall(key="logging", path="/v2/logging", body={"log_verbose_level": 1}),
        ControlCall(key="trace/", path="/v2/trace/setting", body={"trace_rate": "3"}),
    ]
    settings = settings_of(tmp_path, model_control_mode="explicit", load_models=["add_sub"])
    async with standing(settings, calls=calls) as stands:
        assert stands.edge.beats[0].endpoints[0].model == "strings"
        assert stands.edge.names == ["strings"]
        assert (await stands.control.get("/v2/systemsharedmemory/status")).json() == [{"name": "r", **region}]
        assert (await stands.control.get("/v2/logging")).json()["log_verbose_level"] == 1
        assert (await stands.control.get("/v2/trace/setting")).json()["trace_rate"] == "3"


async def test_what_was_asked_while_a_replica_started_is_done_when_it_is_known(tmp_path, block):
    repository(tmp_path / "models", "add_sub", "strings")
    region = {"key": block.name, "offset": 0, "byte_size": 16}
    register = ControlCall(key="system/r", path="/v2/systemsharedmemory/region/r/register", body=region)
    edge = FakeEdge([register])

    async def ask_of_others(beat):
        edge.beats.append(beat)
        edge.calls = [
            ControlCall(key="model/add_sub", path="/v2/repository/models/add_sub/unload"),
            ControlCall(key="model/strings", path="/v2/repository/models/strings/load"),
            ControlCall(key="model/gone", path="/v2/repository/models/gone/load"),
        ]

    edge.heartbeat.remote = ask_of_others
    settings = settings_of(tmp_path, model_control_mode="explicit", load_models=["add_sub"])
    async with standing(settings, edge=edge) as stands:
        assert edge.beats[0].endpoints[0].model == "add_sub"
        assert edge.names == ["strings"]
        assert (await stands.control.get("/v2/systemsharedmemory/status")).json() == []


async def test_inputs_and_outputs_lie_in_shared_memory_by_both_wires(explicit, block):
    register = {"key": f"/{block.name}", "offset": 0, "byte_size": 256}
    assert (await explicit.post("/v2/systemsharedmemory/region/r/register", **register)).status_code == 200
    for kind, address in ((triton_http, explicit.http_address), (triton_grpc, explicit.grpc_address)):
        block.buf[:32] = np.arange(8, dtype=np.float32).tobytes()
        inputs = [kind.InferInput(name, [1, 4], "FP32") for name in ("INPUT0", "INPUT1")]
        for place, tensor in enumerate(inputs):
            tensor.set_shared_memory("r", 16, 16 * place)
        outputs = [kind.InferRequestedOutput(name) for name in ("OUTPUT0", "OUTPUT1")]
        outputs[0].set_shared_memory("r", 64, 128)
        async with kind.InferenceServerClient(address) as client:
            result = await client.infer("add_sub", inputs, outputs=outputs)
            assert result.as_numpy("OUTPUT1").tolist() == [[-4, -4, -4, -4]]
            assert np.frombuffer(block.buf[128:144], np.float32).tolist() == [4, 6, 8, 10]
            outputs[0].set_shared_memory("r", 15, 128)
            with pytest.raises(InferenceServerException, match="should be at least 16 bytes to hold the results"):
                await client.infer("add_sub", inputs, outputs=outputs)
            inputs[0].set_shared_memory("q", 16)
            with pytest.raises(InferenceServerException, match="Unable to find shared memory region: 'q'"):
                await client.infer("add_sub", inputs)
    assert (await explicit.post("/v2/systemsharedmemory/unregister")).status_code == 200
    assert (await explicit.control.get("/v2/systemsharedmemory/status")).json() == []


async def test_cuda_regions_are_refused(explicit):
    answer = await explicit.post("/v2/cudasharedmemory/region/r/register", raw_handle={"b64": ""}, byte_size=1)
    assert (answer.status_code, "GPUs not supported" in answer.text) == (501, True)
    assert (await explicit.control.get("/v2/cudasharedmemory/status")).json() == []
    assert (await explicit.control.get("/v2/cudasharedmemory/region/r/status")).status_code == 404


BAD_REGIONS = {
    "key": ({"byte_size": 1}, "key: must be a string"),
    "size": ({"key": "k"}, "byte_size: must be a whole number"),
    "size-text": ({"key": "k", "byte_size": "1"}, "byte_size: must be a whole number"),
    "offset": ({"key": "k", "byte_size": 1, "offset": True}, "offset: must be a whole number"),
    "missing": ({"key": "/nowhere", "byte_size": 1}, "Unable to open shared memory region: '/nowhere'"),
}


@pytest.mark.parametrize(("body", "problem"), BAD_REGIONS.values(), ids=BAD_REGIONS.keys())
async def test_a_bad_region_is_refused(explicit, body, problem):
    answer = await explicit.post("/v2/systemsharedmemory/region/r/register", **body)
    assert (answer.status_code, problem in answer.json()["error"]) == (400, True), answer.text


async def test_log_settings_are_read_and_changed(explicit):
    before = (await explicit.control.get("/v2/logging")).json()
    assert before["log_info"] is True
    after = (await explicit.post("/v2/logging", log_info=False, log_format="ISO8601")).json()
    assert after == before | {"log_info": False, "log_format": "ISO8601"}
    refused = await explicit.post("/v2/logging", log_file="/tmp/x")
    assert (refused.status_code, refused.json()["error"]) == (
        501,
        "log_file: log file location can not be updated through network protocol",
    )


async def test_traces_are_written_as_triton_writes_them(explicit, tmp_path):
    path = "/v2/models/add_sub/trace/setting"
    settings = {"trace_level": ["TIMESTAMPS"], "trace_rate": "2", "log_frequency": "1"}
    found = (await explicit.post(path, **settings)).json()
    assert found["trace_rate"] == "2"
    async with triton_http.InferenceServerClient(explicit.http_address) as client:
        for _ in range(4):
            await client.infer("add_sub", pair(triton_http, [0] * 4, [0] * 4), request_id="r")
    await explicit.post(path, trace_level=["OFF"])
    (file,) = (tmp_path / "home/traces").glob("*.json")
    entries = json.loads(file.read_text())
    assert [entry["id"] for entry in entries] == [1, 1, 2, 2]
    assert entries[0] == {"id": 1, "model_name": "add_sub", "model_version": 1, "request_id": "r"}
    stamps = [stamp["ns"] for stamp in entries[1]["timestamps"]]
    assert stamps == sorted(stamps)
    assert [stamp["name"] for stamp in entries[1]["timestamps"]][::6] == ["REQUEST_START", "REQUEST_END"]
    assert (await explicit.control.get("/v2/trace/setting")).json()["trace_level"] == ["OFF"]
    assert (await explicit.control.get("/v2/models/nobody/trace/setting")).status_code == 404


async def test_only_the_mesh_controls_and_everybody_sees_metrics(explicit):
    async with httpx.AsyncClient(base_url=explicit.control.base_url) as stranger:
        assert (await stranger.post("/v2/repository/index")).status_code == 401
        assert 'reelmesh_model_ready{backend="ray",model="add_sub"} 1.0' in (await stranger.get("/metrics")).text


@pytest.mark.parametrize("server", ["_oip", "_server"])
async def test_a_replica_whose_server_has_ended_is_not_healthy(tmp_path, server):
    repository(tmp_path / "models", "strings")
    async with standing(settings_of(tmp_path)) as stands:
        await stands.replica.check_health()
        await getattr(stands.replica, server).stop()
        with pytest.raises(Unavailable, match="has ended"):
            await stands.replica.check_health()
