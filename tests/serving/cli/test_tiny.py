"""`reelmesh models tiny`: what it asks for, writes and says."""

import json
from pathlib import Path

import pytest

from serving.cli.main import run
from serving.cli.output import ExitCode


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch, repository_root: Path) -> None:
    monkeypatch.chdir(repository_root)


def test_it_writes_model_folders_and_says_how_to_serve_them(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["models", "tiny", "opus_mt_en_hi", "--into", str(tmp_path)]) == ExitCode.OK
    said = capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "opus_mt_en_hi").iterdir()) == ["config.pbtxt", "model.yaml"]
    assert f"reelmesh up --model-repository {tmp_path} --model-repository model_repository" in said
    assert run(["models", "lint", str(tmp_path)]) == ExitCode.OK


def test_as_json_it_names_the_folders(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["models", "tiny", "opus_mt_en_hi", "--into", str(tmp_path), "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {"opus_mt_en_hi": str(tmp_path / "opus_mt_en_hi")}


def test_without_a_name_it_says_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "tiny"]) == ExitCode.BAD_INPUT
    assert "no model is named: name some of ace_step" in capsys.readouterr().err
