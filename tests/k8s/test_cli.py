import json
from pathlib import Path

import pytest
import yaml

from serving.cli.main import run

from .conftest import ROOT


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_render_prints_objects_to_apply(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["k8s", "render"]) == 0
    kinds = [each["kind"] for each in yaml.safe_load_all(capsys.readouterr().out)]
    assert kinds[0] == "Namespace"
    assert "RayService" in kinds


def test_render_prints_json_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["k8s", "render", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["kind"] == "List"
    assert "ConfigMap" in {each["kind"] for each in listed["items"]}


def test_what_is_written_is_up_to_date_until_somebody_changes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    assert run(["k8s", "render", "--out", str(base)]) == 0
    assert run(["k8s", "render", "--check", "--out", str(base)]) == 0
    (base / "service.yaml").write_text("changed")
    capsys.readouterr()
    assert run(["k8s", "render", "--check", "--json", "--out", str(base)]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out) == {"outdated": [str(base / "service.yaml")]}
    assert json.loads(said.err)["error"]["fix"] == f"run `reelmesh k8s render --out {base}`"


def test_the_committed_base_is_checked_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["k8s", "render", "--check"]) == 0
    assert capsys.readouterr().out == "k8s/base is up to date\n"


def test_a_missing_repository_is_one_line_with_the_fix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["k8s", "render", "-r", str(tmp_path / "none")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert "no such folder" in said.err
