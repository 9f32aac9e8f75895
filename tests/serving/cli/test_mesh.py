"""Starting a mesh: what can be refused is refused with one line, before any process starts."""

import json
import os
import signal
import socket
from pathlib import Path

import psutil
import pytest

from serving.cli.home import taken_home
from serving.cli.main import run
from serving.cli.mesh import _end_on_signals, all_there, replica_error, replicas_wanted, started
from serving.cli.output import ExitCode
from serving.errors import BadInput
from serving.protocol.control import ModelState
from serving.protocol.endpoint import Heartbeat
from serving.repository.load import load_repository
from serving.settings import InferenceSettings

REPOSITORY = Path(__file__).resolve().parents[3] / "model_repository"


def refused(capsys: pytest.CaptureFixture[str], home: Path, *flags: str) -> tuple[int, str]:
    """The exit code and what was said; nothing may run and nothing may be left."""
    before = psutil.Process().children(recursive=True)
    ports = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
    code = run(["up", "--home", str(home), *ports, *flags])
    assert psutil.Process().children(recursive=True) == before
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("reelmesh: ")]
    assert len(told) == 1
    return code, told[0]


def test_a_taken_port_starts_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, told = refused(capsys, tmp_path / "home", "--http-port", port)
    assert code == ExitCode.UNREACHABLE
    assert port in told and "http_port" in told
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(("name", "text"), [("model.yaml", "task: [speech"), ("config.pbtxt", "max_batch_size: many")])
def test_a_broken_model_starts_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, text: str
) -> None:
    folder = tmp_path / "models" / "music"
    folder.mkdir(parents=True)
    for file in ("model.yaml", "config.pbtxt"):
        (folder / file).write_bytes((REPOSITORY / "music" / file).read_bytes())
    (folder / name).write_text(text)
    code, told = refused(capsys, tmp_path / "home", "--model-repository", str(folder.parent))
    assert code == ExitCode.BAD_INPUT
    assert name in told
    assert not (tmp_path / "home").exists()


def test_a_home_that_is_a_file_starts_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "home").write_text("not a folder")
    code, told = refused(capsys, tmp_path / "home")
    assert code == ExitCode.BAD_INPUT
    assert "home" in told and "--home" in told


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_may_not_be_written_starts_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o500)
    code, told = refused(capsys, tmp_path / "home")
    assert code == ExitCode.BAD_INPUT
    assert "--home" in told


def test_an_error_is_json_where_that_was_asked_for(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "home").write_text("not a folder")
    ports = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
    assert run(["up", "--json", "--home", str(tmp_path / "home"), *ports]) == ExitCode.BAD_INPUT
    told = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert told["error"]["field"] == "home"


def test_a_home_that_another_mesh_holds_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with taken_home(tmp_path / "home"):
        code, told = refused(capsys, tmp_path / "home")
    assert code == ExitCode.UNREACHABLE
    assert "already running" in told and "--home" in told
    with taken_home(tmp_path / "home"):
        pass


def test_the_error_of_a_replica_is_told_without_its_traceback() -> None:
    traceback = (
        'Traceback (most recent call last):\n  File "process.py", line 97, in start\n    await process._load(models)\n'
        "serving.errors.BadInput: /models/log_mel: Triton cannot load it: parsing failed: mend the file\n"
    )
    error = replica_error(traceback)
    assert isinstance(error, BadInput)
    assert str(error) == (
        "a replica did not start: /models/log_mel: Triton cannot load it: parsing failed: mend the file"
    )
    assert len(str(replica_error("x" * 5000))) < 600


def test_a_load_that_a_client_asked_for_and_that_failed_holds_no_start_up() -> None:
    gateway = Heartbeat(replica_id="gateway", kind="gateway", endpoints=[])
    wanted = ModelState(name="wanted", version="1", state="READY")
    broken = ModelState(name="broken", version="1", state="UNAVAILABLE", reason="no such module")

    def triton(*models: ModelState) -> Heartbeat:
        return Heartbeat(replica_id="triton", kind="triton", endpoints=[], models=list(models))

    assert started([gateway, triton(wanted, broken)], ["wanted"])
    assert not started([triton(wanted, broken)], ["wanted"]), "nobody answers yet"
    assert not started([gateway, triton(broken)], ["wanted"])
    assert not started([gateway, triton(broken)], ["broken"])
    assert not started([gateway, triton(wanted)], ["wanted"]), "the edge will say so itself"


def test_a_start_is_over_when_every_replica_that_was_asked_for_tells_of_itself() -> None:
    repository = load_repository([REPOSITORY])
    ray = next(iter(repository.groups()))
    inference = InferenceSettings(replicas={"log_mel": 2, repository.groups()[ray][0].name: 3})
    wanted = replicas_wanted(repository, inference)
    assert wanted == {"triton": 2, ray: 3}
    names = ["triton-127.0.0.1:1", "triton-127.0.0.1:2", *(f"{ray}-127.0.0.1:{port}" for port in (3, 4, 5))]
    beats = [Heartbeat(replica_id=name, kind="triton", endpoints=[]) for name in names]
    assert all_there(beats, wanted)
    assert not all_there(beats[1:], wanted)
    assert not all_there(beats[:-1], wanted)
    assert all_there([], replicas_wanted(repository, InferenceSettings()))


def test_a_start_in_the_background_of_a_shell_heeds_ctrl_c() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _end_on_signals()
        for number in before:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
