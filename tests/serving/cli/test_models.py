import json
import os
import shutil
from pathlib import Path

import pytest

from serving.cli.main import run


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch, repository_root: Path) -> None:
    monkeypatch.chdir(repository_root)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["models", *arguments]) == 0
    return capsys.readouterr().out


def test_list_shows_every_model(capsys, repository_root: Path) -> None:
    text = printed(capsys, "list")
    folders = [path.parent.name for path in (repository_root / "model_repository").glob("*/config.pbtxt")]
    assert folders
    assert [name for name in folders if name not in text] == []


def test_list_as_json_can_be_filtered_by_task(capsys) -> None:
    rows = json.loads(printed(capsys, "list", "--task", "speech", "--json"))
    assert {row["task"] for row in rows} == {"speech"}
    assert [(row["name"], row["backend"]) for row in rows if not row["optional"]] == [("speech", "ray")]


def test_show_tells_card_tensors_and_voices(capsys) -> None:
    text = printed(capsys, "show", "speech")
    assert [word for word in ("licence", "TEXT", "TYPE_STRING", "optional", "narrator") if word not in text] == []


def test_show_as_json_is_the_whole_card(capsys) -> None:
    shown = json.loads(printed(capsys, "show", "speech", "--json"))
    assert shown["card"]["task"] == "speech"
    assert {"name": "TEXT", "type": "TYPE_STRING", "dims": [1], "optional": False} in shown["inputs"]


def test_config_prints_a_file_that_passes_lint(capsys, tmp_path: Path, repository_root: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    card = (repository_root / "model_repository" / "speech" / "model.yaml").read_text()
    (folder / "model.yaml").write_text(card)
    (folder / "config.pbtxt").write_text(printed(capsys, "config", "mine", "-r", str(tmp_path)))
    printed(capsys, "lint", "-r", str(tmp_path))


def test_config_refuses_an_unknown_task(capsys) -> None:
    assert run(["models", "config", "mine", "--task", "dance"]) == 2
    assert capsys.readouterr().err.startswith("reelmesh: --task: no task 'dance'")


def test_lint_reports_everything_and_ends_with_1(capsys, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert run(["models", "lint", "-r", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert [line.split(":")[0] for line in captured.out.splitlines()] == ["error", "error"]
    assert captured.err == "2 errors, 0 warnings\n"


def test_lint_as_json_has_every_part(capsys, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert run(["models", "lint", "-r", str(tmp_path), "--json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)
    assert set(finding) == {"severity", "file", "line", "field", "problem", "fix"}


@pytest.mark.parametrize(
    ("terms", "told"),
    [
        ("true", ("Apache-2.0", "commercial use allowed")),
        ("false", ("Apache-2.0, not commercial", "no commercial use")),
        ("conditional\n  condition: small studios", ("Apache-2.0, conditional", "commercial use if small studios")),
    ],
    ids=["allowed", "forbidden", "conditional"],
)
def test_licences_are_listed_and_shown_with_their_condition(
    capsys, tmp_path: Path, repository_root: Path, monkeypatch: pytest.MonkeyPatch, terms: str, told: tuple[str, str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    folder = Path(shutil.copytree(repository_root / "model_repository" / "music", tmp_path / "music"))
    card = (folder / "model.yaml").read_text()
    (folder / "model.yaml").write_text(card.replace("commercial_use: true", f"commercial_use: {terms}"))
    assert told[0] in printed(capsys, "list", "-r", str(tmp_path))
    assert told[1] in printed(capsys, "show", "music", "-r", str(tmp_path))


def test_text_that_looks_like_markup_is_printed_as_it_is(capsys, tmp_path: Path, repository_root: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    source = repository_root / "model_repository" / "music"
    (folder / "config.pbtxt").write_text((source / "config.pbtxt").read_text().replace("music", "mine"))
    lines = (source / "model.yaml").read_text().splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("description:"))
    end = next(index for index in range(start + 1, len(lines)) if lines[index][:1].isalpha())
    lines[start:end] = ['description: "a [bold]bed[/nothing] of music"']
    (folder / "model.yaml").write_text("\n".join(lines))
    assert "a [bold]bed[/nothing] of music" in printed(capsys, "show", "mine", "-r", str(tmp_path))


GOOD = """
backend: "python"
input [ { name: "X" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ 4 ] } ]
"""


@pytest.fixture
def two_models(tmp_path: Path) -> Path:
    """One that is right and one that is wrong."""
    for name, text in {"good": GOOD, "bad": GOOD.replace("dims: [ 4 ]", "dims: [ 0 ]", 1)}.items():
        (tmp_path / "models" / name / "1").mkdir(parents=True)
        (tmp_path / "models" / name / "1" / "model.py").write_text("")
        (tmp_path / "models" / name / "config.pbtxt").write_text(text)
    return tmp_path / "models"


@pytest.mark.parametrize(
    ("target", "code"), [("", 1), ("good", 0), ("bad", 1)], ids=["folder of models", "good model", "bad model"]
)
def test_lint_takes_a_folder_of_models_or_of_one(capsys, two_models: Path, target: str, code: int) -> None:
    assert run(["models", "lint", str(two_models / target)]) == code
    found = capsys.readouterr().out
    assert (f"{two_models}/bad/config.pbtxt:3:input[0].dims: 0 is no size" in found) is bool(code)


def test_lint_takes_the_name_of_a_model(capsys, two_models: Path) -> None:
    assert run(["models", "lint", "good", "-r", str(two_models)]) == 0
    assert run(["models", "lint", "bad", "-r", str(two_models)]) == 1
    assert run(["models", "lint", "god", "-r", str(two_models)]) == 2
    assert "no model and no folder 'god': did you mean 'good'?" in capsys.readouterr().err


@pytest.mark.parametrize(("said", "warned"), [("8192\n24576", True), ("24576", False), ("[N/A]", False)])
def test_declared_memory_is_compared_with_this_machines_smallest_gpu(
    capsys, two_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, warned: bool
) -> None:
    (two_models / "good" / "model.yaml").write_text(
        "description: x\ntask: tensor\nbackend: triton\nengine: tensor\nlicense: {name: MIT, commercial_use: true}\n"
        "source: {uri: 'builtin:'}\nshare: {gpu: 1}\nmemory: {weights_mib: 1, peak_mib: 9000, measured_on: x}\n"
    )
    driver = tmp_path / "bin" / "nvidia-smi"
    driver.parent.mkdir()
    driver.write_text(f"#!/bin/sh\necho '{said}'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(driver.parent), prepend=os.pathsep)
    assert run(["models", "lint", str(two_models / "good")]) == 0
    assert ("memory.peak_mib: 9000 MiB" in capsys.readouterr().out) is warned
