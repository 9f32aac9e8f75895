"""The control plane over real control ports: everywhere or told, and remembered for replicas that come later."""

import asyncio

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb

from serving.errors import NotFound, Unavailable, Unsupported
from tests.serving.gateway.oip_site import open_oip

LOAD = "/v2/repository/models/{}/load"
UNLOAD = "/v2/repository/models/{}/unload"


def keys(oip):
    return [call.key for call in oip.edge.memory.recall()]


async def index(oip, name):
    entries = (await oip.http.post("/v2/repository/index")).json()
    return [(entry.get("state"), entry.get("reason")) for entry in entries if entry["name"] == name]


async def test_a_load_acts_on_every_replica_and_is_remembered(oip):
    assert await index(oip, "extra") == [(None, None)]
    answer = await oip.http.post(LOAD.format("extra"))
    assert (answer.status_code, answer.content) == (200, b"")
    assert [control.calls for control in oip.controls] == [[("load", "extra", {})]] * 2
    assert await index(oip, "extra") == [("READY", "")]
    assert keys(oip) == ["model/extra"]
    await oip.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="extra"))
    assert await index(oip, "extra") == [("UNAVAILABLE", "unloaded")]
    assert keys(oip) == []


async def test_a_model_that_nobody_knows_is_told_in_tritons_words_and_not_remembered(oip):
    words = "failed to load 'nope', failed to poll from model repository"
    answer = await oip.http.post(LOAD.format("nope"))
    assert (answer.status_code, answer.json()) == (404, {"error": words})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await oip.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="nope"))
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.NOT_FOUND, words)
    assert keys(oip) == []
    assert (await oip.http.post(UNLOAD.format("nope"))).status_code == 200


@pytest.mark.parametrize(
    ("kind", "error", "status", "words"),
    [
        ("triton", Unsupported("needs a GPU"), 400, "needs a GPU"),
        ("ray", NotFound("no Ray replica serves it"), 503, "failed to load 'extra', no Triton replica answers"),
    ],
    ids=["what cannot be run here", "Triton's replica is away"],
)
async def test_only_a_model_that_every_kind_of_replica_has_looked_for_is_not_found(oip, kind, error, status, words):
    async def load(name, parameters):
        raise error

    for control in oip.controls:
        control.load = load
        beat = oip.edge.beats[control.replica_id]
        oip.edge.beats[control.replica_id] = beat.model_copy(update={"kind": kind})
    answer = await oip.http.post(LOAD.format("extra"))
    assert answer.status_code == status and words in answer.json()["error"]


async def test_a_load_that_fails_at_one_replica_says_so_and_the_index_shows_it(oip):
    oip.controls[0].refuse = "no memory"
    answer = await oip.http.post(LOAD.format("extra"))
    assert answer.status_code == 400
    assert answer.json()["error"] == (
        "1 of 2 replicas failed to load 'extra' (one): no memory; the others serve it, as the repository index shows"
    )
    assert await index(oip, "extra") == [("READY", "")]
    assert keys(oip) == ["model/extra"]


async def test_a_load_that_fails_everywhere_leaves_what_was_remembered_before(oip):
    await oip.http.post(LOAD.format("extra"), json={"parameters": {"config": '{"backend": "python"}'}})
    before = oip.edge.memory.recall()
    for control in oip.controls:
        control.refuse = "no memory"
    answer = await oip.http.post(LOAD.format("extra"))
    assert answer.status_code == 400
    assert answer.json()["error"] == "no memory"
    oip.controls[1].refuse = "no disk"
    answer = await oip.http.post(LOAD.format("extra"))
    assert answer.json()["error"] == "2 of 2 replicas failed to load 'extra' (one, two): no memory"
    assert oip.edge.memory.recall() == before


async def test_overrides_reach_every_replica_alike_by_both_wires(oip):
    parameters = {"config": '{"backend": "python"}', "file:1/model.py": "YWJj"}
    answer = await oip.http.post(LOAD.format("new"), json={"parameters": parameters})
    assert answer.status_code == 200
    message = pb.RepositoryModelLoadRequest(model_name="new")
    message.parameters["config"].string_param = parameters["config"]
    message.parameters["file:1/model.py"].bytes_param = b"abc"
    await oip.stub.RepositoryModelLoad(message)
    for control in oip.controls:
        assert control.calls == [("load", "new", parameters)] * 2


async def test_a_replica_that_does_not_answer_is_told_of(oip):
    await oip.controls[1].server.stop()
    answer = await oip.http.post(LOAD.format("extra"))
    assert answer.status_code == 503
    assert "1 of 2 replicas failed to load 'extra' (two): the replica did not answer" in answer.json()["error"]
    assert answer.headers["retry-after"]
    assert keys(oip) == ["model/extra"]


async def test_a_load_goes_on_though_its_client_has_gone(oip):
    with pytest.raises(asyncio.TimeoutError):
        async with asyncio.timeout(0):
            await oip.plane.control.load("extra", {})
    async with asyncio.timeout(5):
        while await index(oip, "extra") != [("READY", "")]:  # noqa: ASYNC110 - it happens in replicas
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("mode", ["none", "poll"])
async def test_models_are_loaded_by_calls_only_where_control_is_explicit(mode):
    async with open_oip(["one"], mode=mode) as oip:
        for path in (LOAD, UNLOAD):
            answer = await oip.http.post(path.format("echo"))
            assert answer.status_code == 503
            assert "explicit model load / unload is not allowed" in answer.json()["error"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await oip.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="echo"))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_full_memory_refuses_a_call_before_anybody_does_it(oip):
    for number in range(20):
        await oip.plane.control.register("system", f"r{number}", {"key": f"/r{number}", "byte_size": 1})
    with pytest.raises(Unavailable, match="remembers 20 control calls"):
        await oip.plane.control.load("extra", {})
    assert oip.controls[0].calls == []


async def test_log_settings_are_changed_everywhere_and_changes_add_up(oip):
    answer = await oip.http.post("/v2/logging", json={"log_verbose_level": 2})
    assert answer.json() == {"log_info": True, "log_verbose_level": 2, "log_format": "default"}
    message = pb.LogSettingsRequest()
    message.settings["log_info"].bool_param = False
    found = (await oip.stub.LogSettings(message)).settings
    assert (found["log_info"].bool_param, found["log_verbose_level"].uint32_param) == (False, 2)
    assert (await oip.http.get("/v2/logging")).json()["log_info"] is False
    assert [control.logs for control in oip.controls] == [oip.controls[0].logs] * 2
    assert [call.body for call in oip.edge.memory.recall()] == [{"log_verbose_level": 2, "log_info": False}]


async def test_trace_settings_are_changed_for_all_or_for_one_model(oip):
    changes = {"trace_level": ["TIMESTAMPS"], "trace_rate": "7"}
    assert (await oip.http.post("/v2/trace/setting", json=changes)).json() == changes
    message = pb.TraceSettingRequest(model_name="echo")
    message.settings["trace_rate"].value.append("9")
    found = (await oip.stub.TraceSetting(message)).settings
    assert (list(found["trace_rate"].value), list(found["trace_level"].value)) == (["9"], ["TIMESTAMPS"])
    assert keys(oip) == ["trace", "trace/echo"]
    answer = await oip.http.get("/v2/models/nobody/trace/setting")
    assert (answer.status_code, answer.json()) == (400, {"error": "Request for unknown model : nobody"})


async def test_a_region_is_registered_everywhere_and_shown_once(oip):
    body = {"key": "/a", "offset": 8, "byte_size": 64}
    assert (await oip.http.post("/v2/systemsharedmemory/region/a/register", json=body)).status_code == 200
    await oip.stub.SystemSharedMemoryRegister(pb.SystemSharedMemoryRegisterRequest(name="b", key="/b", byte_size=1))
    assert [sorted(control.regions_held) for control in oip.controls] == [["a", "b"]] * 2
    assert (await oip.http.get("/v2/systemsharedmemory/region/a/status")).json() == [{"name": "a", **body}]
    status = await oip.stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest())
    assert {name: each.byte_size for name, each in status.regions.items()} == {"a": 64, "b": 1}
    assert (await oip.http.post("/v2/systemsharedmemory/region/a/unregister")).status_code == 200
    assert keys(oip) == ["system/b"]
    await oip.stub.SystemSharedMemoryUnregister(pb.SystemSharedMemoryUnregisterRequest())
    assert keys(oip) == []
    assert (await oip.http.get("/v2/systemsharedmemory/status")).json() == []


async def test_a_region_that_one_replica_refuses_is_taken_from_the_others(oip):
    oip.controls[1].refuse = "Unable to open shared memory region: '/a'"
    answer = await oip.http.post("/v2/systemsharedmemory/region/a/register", json={"key": "/a", "byte_size": 1})
    assert answer.status_code == 500
    assert "1 of 2 replicas failed to register 'a' (two): Unable to open shared memory" in answer.json()["error"]
    assert [control.regions_held for control in oip.controls] == [{}, {}]
    assert keys(oip) == []


async def test_a_region_that_is_not_there_is_told_in_tritons_words(oip):
    answer = await oip.http.get("/v2/systemsharedmemory/region/z/status")
    assert (answer.status_code, answer.json()) == (404, {"error": "Unable to find system shared memory region: 'z'"})
    assert (await oip.http.post("/v2/systemsharedmemory/region/z/unregister")).status_code == 200


async def test_cuda_memory_is_unsupported_where_no_replica_has_a_device(oip):
    body = {"raw_handle": {"b64": "AAAA"}, "device_id": 0, "byte_size": 8}
    answer = await oip.http.post("/v2/cudasharedmemory/region/a/register", json=body)
    assert (answer.status_code, answer.json()) == (501, {"error": "there is no GPU here"})
    message = pb.CudaSharedMemoryRegisterRequest(name="a", raw_handle=b"abc", device_id=0, byte_size=8)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await oip.stub.CudaSharedMemoryRegister(message)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert not (await oip.stub.CudaSharedMemoryStatus(pb.CudaSharedMemoryStatusRequest())).regions
    assert keys(oip) == []


async def test_without_replicas_settings_are_unavailable_and_regions_are_none():
    async with open_oip([]) as oip:
        assert (await oip.http.get("/v2/logging")).status_code == 503
        assert (await oip.http.get("/v2/systemsharedmemory/status")).json() == []
        assert (await oip.http.post(LOAD.format("echo"))).status_code == 503
