"""Weights are pulled, verified and removed on the command line."""

import json
from pathlib import Path

import pytest

from serving.cli.main import run
from tests.serving.weights.hub_server import COMMIT, Hub, running_hub
from tests.serving.weights.models import FILES

CARD = """\
description: a writer
task: tensor
backend: ray
engine: onnxruntime
license: {{name: MIT, commercial_use: true}}
source: {{uri: "{uri}", revision: {revision}}}
"""
CONFIG = """\
name: "{name}"
backend: "ray"
input [{{name: "X", data_type: TYPE_FP32, dims: [1]}}]
output [{{name: "Y", data_type: TYPE_FP32, dims: [1]}}]
"""

BARE = " (as files go; the card has no sha256 to compare with)"


def add(repository: Path, name: str, uri: str, revision: str = "main") -> None:
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").write_bytes(b"x")
    (folder / "model.yaml").write_text(CARD.format(uri=uri, revision=revision))
    (folder / "config.pbtxt").write_text(CONFIG.format(name=name))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the models ``writer`` (hub) and ``local`` (a folder)."""
    monkeypatch.setenv("REELMESH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("REELMESH_MODEL_REPOSITORIES", json.dumps([str(tmp_path / "models")]))
    monkeypatch.setenv("REELMESH_WEIGHTS__TRIES", "1")
    add(tmp_path / "models", "writer", "hf:studio/writer")
    add(tmp_path / "models", "local", "file:weights")
    for name, data in FILES.items():
        path = tmp_path / "models" / "local" / "weights" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "models"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with running_hub() as running:
        running.put("studio/writer", FILES)
        monkeypatch.setenv("REELMESH_WEIGHTS__HUB_URL", running.url)
        yield running


def test_all_are_pulled_then_verified_then_removed(
    repository: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["models", "pull", "--all", "--json"]) == 0
    rows = {row["model"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["writer"]["revision"] == COMMIT
    assert rows["writer"]["digest"] == rows["local"]["digest"]
    assert rows["writer"]["size_bytes"] == sum(map(len, FILES.values()))
    assert rows["local"]["folder"] == str(repository / "local" / "weights")
    assert run(["models", "verify"]) == 0
    assert set(capsys.readouterr().out.splitlines()) == {"writer: good", f"local: good{BARE}"}
    assert run(["models", "gc", "--to", "0", "--dry-run", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["removed"]
    assert (one["uri"], one["revision"]) == ("hf:studio/writer", COMMIT)
    assert run(["models", "gc", "--to", "0"]) == 0
    assert "hf:studio/writer at 1111" in capsys.readouterr().out
    assert run(["models", "verify", "--json"]) == 0
    states = {row["model"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert states == {"writer": "not here", "local": "good"}
    assert run(["models", "verify", "writer"]) == 3


def test_what_is_damaged_is_named_and_fetched_again(
    repository: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["models", "pull", "writer"]) == 0
    told = capsys.readouterr()
    name, folder = told.out.strip().split("\t")
    assert name == "writer"
    assert f"at {COMMIT} fetched in" in told.err
    path = Path(folder) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    assert run(["models", "verify"]) == 1
    told = capsys.readouterr()
    assert "writer: damaged" in told.out
    assert "has digest" in told.err
    assert "`reelmesh models pull --again writer`" in told.err
    path.write_bytes(b"")
    assert run(["models", "verify", "writer", "--json"]) == 1
    assert "has 0 bytes" in capsys.readouterr().out
    path.unlink()
    assert run(["models", "verify", "writer"]) == 1
    assert "is gone" in capsys.readouterr().err
    assert run(["models", "pull", "writer"]) == 0
    assert run(["models", "pull", "--again", "writer"]) == 0
    assert run(["models", "verify"]) == 0


def test_a_revision_that_does_not_exist_is_one_line(
    repository: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    add(repository, "other", "hf:studio/writer", revision="v9")
    assert run(["models", "pull", "other"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("reelmesh: other/model.yaml:source.revision: hf:studio/writer has no revision 'v9': look at")


def test_one_that_fails_does_not_keep_the_others(
    repository: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    add(repository, "other", "hf:studio/none")
    assert run(["models", "pull", "--all"]) == 2
    told = capsys.readouterr()
    assert "writer\t" in told.out
    assert "the hub shows no model studio/none" in told.err


def test_parts_and_adapters_are_looked_after_too(
    repository: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.put("studio/control", {"model.safetensors": FILES["model.safetensors"]})
    card = repository / "writer" / "model.yaml"
    further = (
        "parts: {control: {source: {uri: 'hf:studio/control'}}}\nadapters: {noir: {source: {uri: 'hf:studio/none'}}}\n"
    )
    card.write_text(card.read_text() + further)
    assert run(["models", "pull", "writer"]) == 2
    told = capsys.readouterr()
    assert [line.partition("\t")[0] for line in told.out.splitlines()] == ["writer", "writer parts.control"]
    assert "reelmesh: writer/model.yaml:adapters.noir.source.uri: the hub shows no model studio/none" in told.err
    assert run(["models", "verify"]) == 0
    states = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert states == {
        "writer": "good", "writer parts.control": "good", "writer adapters.noir": "not here", "local": f"good{BARE}"
    }  # fmt: skip


def test_what_to_pull_must_be_said(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "pull"]) == 2
    assert run(["models", "pull", "local", "--all"]) == 2
    assert "give names or --all" in capsys.readouterr().err


def test_weights_that_somebody_has_yet_to_bring_are_not_damaged(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(repository, "other", "file:own-weights")
    assert run(["models", "verify"]) == 0
    assert "other: not here" in capsys.readouterr().out
    assert run(["models", "verify", "other"]) == 2
    assert "put the weights there" in capsys.readouterr().err


def test_damage_to_a_folder_used_in_place_is_found(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = repository / "local" / "weights" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert run(["models", "verify", "local"]) == 1
    assert "is truncated" in capsys.readouterr().err
