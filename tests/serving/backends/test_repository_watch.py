"""Folders that are watched."""

import shutil
from pathlib import Path

import pytest

from serving.backends.repository_watch import RepositoryWatch, stamps
from serving.errors import BadInput, NotFound
from tests.flows.triton_models import write_models


class Models:
    def __init__(self):
        self.calls, self.refusal = [], None

    async def reload(self, name):
        self.calls.append(("reload", name))
        if self.refusal:
            raise self.refusal

    async def remove(self, name, *, hide):
        self.calls.append(("remove", name))


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "models" / "m" / "1"
    made.mkdir(parents=True)
    (made / "model.py").write_text("1")
    return made


async def test_each_change_is_acted_on_once(tmp_path, folder):
    models = Models()
    watch = RepositoryWatch([tmp_path / "models"], models, 60)
    await watch.look()
    assert models.calls == []
    (folder / "model.py").write_text("22")
    await watch.look()
    await watch.look()
    shutil.copytree(folder.parent, folder.parent.parent / "n")
    await watch.look()
    shutil.rmtree(folder.parent)
    await watch.look()
    await watch.look()
    assert models.calls == [("reload", "m"), ("reload", "n"), ("remove", "m")]


@pytest.mark.parametrize(
    ("refusal", "calls"),
    [(BadInput("broken"), [("reload", "m")]), (NotFound("of others"), [("reload", "m"), ("remove", "m")])],
    ids=["broken", "of-others"],
)
async def test_a_model_that_does_not_load_waits_for_its_next_change(tmp_path, folder, refusal, calls):
    models = Models()
    models.refusal = refusal
    watch = RepositoryWatch([tmp_path / "models"], models, 60)
    (folder / "model.py").write_text("22")
    await watch.look()
    await watch.look()
    assert models.calls == calls


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
