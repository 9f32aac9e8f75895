"""Control mode poll: a replica whose models follow their folders."""

import shutil
from pathlib import Path

from serving.backends.triton.install import TritonInstall
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
