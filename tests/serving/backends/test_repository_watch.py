"""Folders that are watched."""

import shutil

import pytest

from serving.backends.repository_watch import RepositoryWatch
from serving.errors import BadInput, NotFound


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
