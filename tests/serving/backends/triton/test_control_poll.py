"""Control mode poll: a replica whose models follow their folders."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from serving.backends.triton.control import is_gone
from serving.backends.triton.install import TritonInstall
from serving.protocol.control import ModelState
from tests.flows.triton_models import write_model, write_models

from .edge import Edge
from .test_control import add, settings_for, start, states, write_python


async def test_models_come_change_and_go_with_their_folders(triton: TritonInstall, tmp_path: Path) -> None:
    repository = write_models(tmp_path / "models", ["simple"])
    folder = write_python(repository, "adder", 1)
    edge = Edge()
    settings = settings_for(tmp_path / "home", repository, model_control_mode="poll", repository_poll_s=3600)
    replica = await start(settings, edge)
    try:
        assert replica._watch is not None
        assert await add(replica, "adder") == 2
        write_python(repository, "adder", 5)
        shutil.rmtree(repository / "simple")
        write_model(repository, "mlp")
        write_model(repository, "mlp_ray")
        await replica._watch.look()
        assert await add(replica, "adder") == 6
        assert edge.ready == {"adder", "mlp"}
        assert states(edge).keys() == {"adder", "mlp"}
        (folder / "1/model.py").write_text("raise ValueError('half a file')")
        await replica._watch.look()
        assert await add(replica, "adder") == 6
        assert "half a file" in states(edge)["adder"].reason
        write_python(repository, "adder", 7)
        await replica._watch.look()
        assert await add(replica, "adder") == 8
        assert states(edge)["adder"].reason == ""
    finally:
        await replica.close()


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ([("UNAVAILABLE", "unloaded")], True),
        ([("UNLOADING", ""), ("UNAVAILABLE", "unloaded")], True),
        ([("UNAVAILABLE", "unloaded"), ("READY", "")], False),
        ([("UNAVAILABLE", "it is broken")], True),
        ([("LOADING", "")], False),
    ],
)
async def test_a_model_is_gone_when_no_version_is_wanted_any_more(seen: list[tuple[Any, str]], expected: bool) -> None:
    assert is_gone([ModelState(name="m", state=state, reason=reason) for state, reason in seen]) is expected
