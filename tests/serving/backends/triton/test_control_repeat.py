"""What a replica repeats: after its Triton died, and when it starts after others."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from serving.backends.triton.install import TritonInstall
from serving.backends.triton.replica import TritonReplica
from serving.errors import NotFound
from serving.protocol.control import ControlCall
from tests.flows.triton_models import mlp, write_models

from .conftest import Make
from .edge import Edge
from .test_control import MLP, batch, encoded, settings_for, start, states


async def test_a_killed_triton_comes_back_with_all_it_was_asked_for(
    triton: TritonInstall, tmp_path: Path, shared: Make
) -> None:
    repository = write_models(tmp_path / "models", ["simple", "mlp"])
    edge = Edge()
    replica = await start(settings_for(tmp_path / "home", repository, load_models=["simple"]), edge)
    body = {"key": shared("kept", 64), "offset": 0, "byte_size": 64}
    try:
        files = {"config": json.dumps(MLP), "file:1/model.onnx": encoded(mlp().SerializeToString())}
        await replica.control.load("sent", files)
        await replica.control.load("mlp", {"config": json.dumps(MLP)})
        await replica.control.unload("simple", dependents=False)
        edge.calls += [
            ControlCall(key="system/kept", path="/v2/systemsharedmemory/region/kept/register", body=body),
            ControlCall(key="system/lost", path="/v2/systemsharedmemory/region/lost/register", body={"key": "/no"}),
            ControlCall(key="logging", path="/v2/logging", body={"log_verbose_level": 1}),
            ControlCall(key="trace/mlp", path="/v2/models/mlp/trace/setting", body={"trace_rate": "3"}),
        ]
        before = len(edge.beats)
        await kill_and_wait(replica, edge)
        restarting = next(beat for beat in edge.beats[before:] if not beat.endpoints)
        assert {(state.name, state.reason) for state in restarting.models} == {
            ("mlp", "tritonserver is restarting"),
            ("sent", "tritonserver is restarting"),
        }
        assert [await batch(replica, model, 3) for model in ("mlp", "sent")] == [400, 400]
        assert await replica.control.regions("system", "") == [{"name": "kept", **body}]
        assert (await replica.control.log_settings({}))["log_verbose_level"] == 1
        assert (await replica.control.trace_settings("mlp", {}))["trace_rate"] == "3"
    finally:
        await replica.close()


async def kill_and_wait(replica: TritonReplica, edge: Edge) -> None:
    ready = edge.ready
    assert replica.server._process is not None
    replica.server._process.kill()
    async with asyncio.timeout(30):
        while replica.server.restarts == 0 or edge.ready != ready:  # noqa: ASYNC110 - the replica does it
            await asyncio.sleep(0.02)


async def test_a_replica_that_starts_later_repeats_what_the_mesh_was_asked(
    triton: TritonInstall, tmp_path: Path
) -> None:
    broken = write_models(tmp_path / "models", ["simple", "simple_ensemble", "mlp"])
    files = {"config": json.dumps(MLP), "file:1/model.onnx": encoded(mlp().SerializeToString())}
    edge = Edge(
        [
            model_asked("simple_ensemble", "unload", {"unload_dependents": True}),
            model_asked("mlp", "load", {"config": json.dumps(MLP)}),
            model_asked("mine_too", "load", files),
            model_asked("nobody", "load", {}),
            model_asked("wrong", "load", files | {"file:1/model.onnx": encoded(b"x")}),
            ControlCall(key="logging", path="/v2/logging", body={"log_verbose_level": 2}),
        ]
    )
    replica = await start(settings_for(tmp_path / "home", broken, load_models=["simple_ensemble"]), edge)
    try:
        await soon(edge)
        assert edge.ready == {"mlp", "mine_too"}
        assert await batch(replica, "mlp", 3) == 400
        assert "cannot load" in states(edge)["wrong"].reason
        assert "nobody" not in states(edge)
        assert (await replica.control.log_settings({}))["log_verbose_level"] == 2
    finally:
        await replica.close()
    assert edge.beats[-1].endpoints == []


async def soon(edge: Edge) -> None:
    """The first beat is sent by a task of its own."""
    async with asyncio.timeout(5):
        while not edge.beats:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def model_asked(name: str, verb: str, parameters: dict[str, Any]) -> ControlCall:
    path = f"/v2/repository/models/{name.replace(' ', '%20')}/{verb}"
    return ControlCall(key=f"model/{name}", path=path, body={"parameters": parameters})


async def test_a_name_that_does_not_exist_fails_the_start(triton: TritonInstall, tmp_path: Path) -> None:
    repository = write_models(tmp_path / "models", ["simple"])
    with pytest.raises(NotFound, match="nobody"):
        await start(settings_for(tmp_path / "home", repository, load_models=["nobody"]))
