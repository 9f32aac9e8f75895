"""Control mode poll: a replica whose models follow their folders."""

import shutil
from pathlib import Path

import pytest

from serving.backends.triton.install import TritonInstall
from serving.backends.triton.poll import stamps
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
        assert replica._poller is not None
        assert await add(replica, "adder") == 2
        write_python(repository, "adder", 5)
        shutil.rmtree(repository / "simple")
        write_model(repository, "mlp")
        write_model(repository, "mlp_ray")
        await replica._poller.look()
        assert await add(replica, "adder") == 6
        assert edge.ready == {"adder", "mlp"}
        assert states(edge).keys() == {"adder", "mlp"}
        (folder / "1/model.py").write_text("raise ValueError('half a file')")
        await replica._poller.look()
        assert await add(replica, "adder") == 6
        assert "half a file" in states(edge)["adder"].reason
        write_python(repository, "adder", 7)
        await replica._poller.look()
        assert await add(replica, "adder") == 8
        assert states(edge)["adder"].reason == ""
    finally:
        await replica.close()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return write_models(tmp_path / "models", ["simple", "mlp"])


def test_a_folder_that_stays_as_it_is_looks_the_same(repository: Path) -> None:
    assert stamps([repository]) == stamps([repository])
    assert stamps([repository, repository]) == stamps([repository]), "of two of one name the first one wins"


def test_a_file_that_is_added_changed_or_removed_changes_its_folder_alone(repository: Path) -> None:
    file = repository / "mlp/1/labels.txt"
    seen = [stamps([repository])]
    for step in ("one", "other", ""):
        file.write_text(step) if step else file.unlink()
        seen.append(stamps([repository]))
    assert len({look["mlp"] for look in seen}) == 4
    assert len({look["simple"] for look in seen}) == 1


def test_a_link_to_a_folder_above_does_not_keep_it_looking_for_ever(repository: Path) -> None:
    (repository / "mlp/1/loop").symlink_to(repository)
    assert stamps([repository]).keys() == {"simple", "mlp"}


def test_a_repository_that_is_gone_has_no_models(tmp_path: Path) -> None:
    assert stamps([tmp_path / "nowhere"]) == {}
