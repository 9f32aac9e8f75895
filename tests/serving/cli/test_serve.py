"""`reelmesh serve`: its flags mean what tritonserver's mean, and what cannot start is refused before anything does."""

import json
from pathlib import Path

import psutil
import pytest

from serving.cli.main import run
from serving.cli.mesh import model_rows
from serving.cli.output import ExitCode
from serving.cli.serve import replica_counts
from serving.errors import BadInput
from serving.protocol.control import ModelState
from serving.protocol.endpoint import Heartbeat

ENSEMBLE = """
platform: "ensemble"
input [ { name: "X" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ 4 ] } ]
ensemble_scheduling {
  step [
    { model_name: "mlp" model_version: -1 input_map { key: "X" value: "X" } output_map { key: "Y" value: "Y" } }
  ]
}
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two Triton models and one that is broken, which only ``all`` asks for."""
    folder = tmp_path / "models"
    for name, text in {"mlp": 'backend: "onnxruntime"', "both": ENSEMBLE}.items():
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(text)
    (folder / "mlp" / "1" / "model.onnx").write_bytes(b"")
    return folder


def refused(capsys: pytest.CaptureFixture[str], repository: Path, *flags: str) -> tuple[int, str]:
    """The exit code and the one line that was said; nothing may run, and nothing may be left."""
    before = set(psutil.Process().children())
    here = sorted(repository.rglob("*"))
    ports = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
    code = run(["serve", "--model-repository", str(repository), *ports, *flags])
    assert set(psutil.Process().children()) <= before, "servers of other tests may end meanwhile, and none begins"
    assert sorted(repository.rglob("*")) == here
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("reelmesh: ")]
    assert len(told) == 1
    return code, told[0]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--load-model", "mlp"], "--model-control-mode=explicit"),
        (
            ["--model-control-mode", "explicit", "--load-model", "mpl"],
            "--load-model: failed to load 'mpl', no such model",
        ),
        (["--replicas", "mpl=2"], "--replicas: no model 'mpl' to have replicas of: the repository has both"),
        (["--keys", "nokeys.yaml"], "or correct --keys or REELMESH_EDGE__KEYS_FILE"),
        (["--host", "0.0.0.0"], "with --keys keys.yaml or REELMESH_EDGE__KEYS_FILE=keys.yaml"),  # noqa: S104
        (["--replicas", "mlp"], "write MODEL=N"),
        (["--replicas", "mlp=0"], "write MODEL=N"),
        (["--replicas", "mlp=" + "9" * 400], "write MODEL=N"),
        (["--triton", "off"], "both: an ensemble needs Triton, which is off"),
        (["--model-control-mode", "sometimes"], "explicit"),
        (["--exit-timeout-secs", "-1"], "--exit-timeout-secs"),
        (["--exit-timeout-secs", "inf"], "REELMESH_INFERENCE__EXIT_TIMEOUT_S: inf: input should be a finite number"),
        (["--exit-timeout-secs", "nan"], "--exit-timeout-secs"),
        (["--repository-poll-secs", "nan"], "--repository-poll-secs"),
        (["--model-control-mode", "explicit", "--load-model", "*", "--load-model", "mlp"], "the only --load-model"),
        (["--model-repository", "/nowhere"], "no such folder"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_flags_that_cannot_be_met_start_nothing(
    capsys: pytest.CaptureFixture[str], repository: Path, flags: list[str], words: str
) -> None:
    code, told = refused(capsys, repository, *flags)
    assert code == ExitCode.BAD_INPUT
    assert words in told


@pytest.mark.parametrize(
    ("mode", "code"),
    [(["--model-control-mode", "none"], 2), (["--model-control-mode", "explicit", "--load-model", "bad"], 2)],
    ids=["none", "asked for"],
)
def test_a_broken_model_that_is_asked_for_is_named(
    capsys: pytest.CaptureFixture[str], repository: Path, mode: list[str], code: int
) -> None:
    (repository / "bad").mkdir()
    (repository / "bad" / "config.pbtxt").write_text("max_batch_size: many")
    exit_code, told = refused(capsys, repository, *mode)
    assert exit_code == code
    assert "bad/config.pbtxt:1" in told


def test_no_folder_is_left_in_the_cache_by_a_refusal(
    capsys: pytest.CaptureFixture[str], repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    refused(capsys, repository, "--triton", "off")
    assert list((tmp_path / "cache").rglob("*")) == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--log-verbose=1"],
            "--log-verbose is tritonserver's, and no flag of `reelmesh serve`: set REELMESH_LOG__LEVEL",
        ),
        (["--strict-readiness", "false"], "/v2/health/ready is always strict"),
        (["--http-address", "127.0.0.1"], "use --host"),
        (["--grpc-use-ssl=true"], "there is no TLS at the edge"),
        (["--log-verbos"], "No such option: --log-verbos"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_flag_that_only_tritonserver_has_says_what_to_use_instead(
    capsys: pytest.CaptureFixture[str], repository: Path, flags: list[str], words: str
) -> None:
    code, told = refused(capsys, repository, *flags)
    assert code == ExitCode.BAD_INPUT
    assert words in told


def test_a_model_given_as_the_repository_is_told_to_be_one(
    capsys: pytest.CaptureFixture[str], repository: Path
) -> None:
    for mode in ("none", "explicit"):
        code, told = refused(capsys, repository / "mlp", "--model-control-mode", mode)
        assert code == ExitCode.BAD_INPUT
        assert f"name its parent: --model-repository {repository}" in told
    (repository / "mlp" / "config.pbtxt").unlink()
    assert "the folder of a model" in refused(capsys, repository / "mlp")[1]


def test_replicas_are_counted_by_model() -> None:
    assert replica_counts(["mlp=2", "a=b=3"]) == {"mlp": 2, "a=b": 3}
    with pytest.raises(BadInput, match="--replicas"):
        replica_counts(["=2"])


def test_an_error_is_json_where_that_was_asked_for(capsys: pytest.CaptureFixture[str], repository: Path) -> None:
    assert run(["serve", "--json", "--model-repository", str(repository), "--load-model", "mlp"]) == 2
    assert json.loads(capsys.readouterr().err.splitlines()[-1])["error"]["field"] == "--load-model"


def test_models_are_listed_with_how_many_replicas_hold_them() -> None:
    mlp = ModelState(name="mlp", version="1", state="READY")
    late = ModelState(name="late", state="UNAVAILABLE", reason="unloaded")
    beats = [
        Heartbeat(replica_id="a", kind="triton", endpoints=[], models=[mlp, late]),
        Heartbeat(replica_id="b", kind="triton", endpoints=[], models=[mlp]),
        Heartbeat(replica_id="c", kind="gateway", endpoints=[]),
    ]
    rows = [(row["name"], row["state"], row["served_by"], row["replicas"]) for row in model_rows(beats)]
    assert rows == [("late", "UNAVAILABLE", "triton", 1), ("mlp", "READY", "triton", 2)]
