"""Tiny checkpoints are made once, whole, and again when anything that makes them changes."""

import sys
from pathlib import Path

import pytest

from serving.backends.ray.tiny import TINY, build
from serving.backends.ray.tiny.build import tiny_checkpoint, tiny_model_folder
from serving.errors import MissingDependency, NotFound
from serving.repository.load import load_repository
from tests.servers.tiny import REPOSITORY


def test_a_checkpoint_is_made_once(tmp_path: Path) -> None:
    first = tiny_checkpoint("ltx_video", tmp_path)
    before = (first / "model_index.json").stat().st_mtime_ns
    assert tiny_checkpoint("ltx_video", tmp_path) == first
    assert (first / "model_index.json").stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == [first.name]


def test_another_source_of_any_maker_is_another_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = TINY["ltx_video"].partition(":")[0]
    sources = tmp_path / "tiny"
    sources.mkdir()
    monkeypatch.setattr(build, "__file__", str(sources / "build.py"))
    (sources / "ltx.py").write_text("1")
    (sources / "t5.py").write_text("1")
    before = build._key(module)
    assert build._key(module) == before
    (sources / "t5.py").write_text("2")
    assert build._key(module) != before


def test_a_model_folder_serves_the_checkpoint_on_any_machine(tmp_path: Path) -> None:
    model = load_repository([REPOSITORY]).get("ltx_video_i2v")
    folder = tiny_model_folder(model, tmp_path / "models", tmp_path / "cache")
    tiny = load_repository([folder.parent]).get("ltx_video_i2v")
    assert (tiny.card.precision, tiny.card.share.gpu, tiny.card.optional) == ("fp32", 0, False)
    assert tiny.card.architecture == model.card.architecture
    assert Path(tiny.card.source.uri.removeprefix("file:")).is_dir()


def test_a_model_without_a_maker_is_told_with_those_that_have_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no tiny checkpoint of 'music': one of .*ltx2"):
        tiny_checkpoint("music", tmp_path)


def test_a_library_that_is_not_installed_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingDependency, match=r"makes a tiny sdxl: pip install 'reelmesh\[models\]'"):
        tiny_checkpoint("sdxl", tmp_path)
    assert list(tmp_path.iterdir()) == []
