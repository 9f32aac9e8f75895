import json
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from serving.cli import doctor_checks
from serving.cli.doctor_checks import CHECKS, run_checks
from serving.cli.main import run
from serving.errors import MissingDependency
from serving.settings import EdgeSettings, LicenceSettings, Settings


@pytest.fixture(autouse=True)
def _on_free_ports(monkeypatch, repository_root: Path) -> None:
    monkeypatch.chdir(repository_root)
    for name in ("HTTP", "GRPC", "METRICS"):
        monkeypatch.setenv(f"REELMESH_EDGE__{name}_PORT", "0")


def test_this_machine_has_what_the_mesh_needs(capsys) -> None:
    assert run(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ready"] is True
    assert [check["name"] for check in report["checks"]] == [name for name, _ in CHECKS]


def test_people_see_what_was_found_and_how_to_mend_it(capsys) -> None:
    assert run(["doctor"]) == 0
    text = capsys.readouterr().out
    assert [name for name, _ in CHECKS if name not in text] == []


def test_a_missing_program_ends_with_3_and_its_fix(monkeypatch, capsys) -> None:
    def missing(_settings: Settings) -> doctor_checks.Check:
        raise MissingDependency("ffmpeg is not installed", fix="pip install imageio-ffmpeg")

    monkeypatch.setattr(doctor_checks, "CHECKS", (("ffmpeg", missing),))
    assert run(["doctor"]) == 3
    assert "pip install imageio-ffmpeg" in capsys.readouterr().out


def test_a_taken_port_is_named(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        busy = settings.model_copy(update={"edge": EdgeSettings(http_port=port, grpc_port=0, metrics_port=0)})
        check = next(check for check in run_checks(busy) if check.name == "ports")
    assert check.state == "missing"
    assert str(port) in check.found
    assert check.fix


@pytest.mark.parametrize(
    ("name", "state"), [pytest.param("reelmesh", "ok", id="a mesh"), pytest.param("triton", "missing", id="another")]
)
def test_a_mesh_that_runs_here_is_no_fault(settings: Settings, name: str, state: str) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"name": name}).encode() if self.path == "/v2" else b"?")

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        edge = EdgeSettings(http_port=server.server_port, grpc_port=0, metrics_port=0)
        check = doctor_checks._guarded("ports", doctor_checks.ports, settings.model_copy(update={"edge": edge}))
        server.shutdown()
    assert check.state == state
    assert str(server.server_port) in check.found


def test_a_broken_repository_is_named(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    check = doctor_checks.models(settings.model_copy(update={"model_repositories": [tmp_path]}))
    assert (check.state, check.fix) == ("missing", "reelmesh models lint")


def test_a_program_that_cannot_run_is_missing_not_a_crash(settings: Settings, tmp_path: Path) -> None:
    broken = tmp_path / "tritonserver"
    broken.write_text("not a program")
    broken.chmod(0o755)
    checks = {check.name: check for check in run_checks(settings.model_copy(update={"tritonserver": broken}))}
    assert checks["Triton"].state == "missing"


def test_licences_tell_what_commercial_work_may_not_reach_and_what_is_accepted_in_vain(
    tmp_path: Path, repository_root: Path
) -> None:
    home = Path(shutil.copytree(repository_root / "model_repository" / "music", tmp_path / "models" / "music"))
    settings = Settings(home=tmp_path / "home", model_repositories=[tmp_path / "models"]).resolved()
    assert doctor_checks.licences(settings).found == "commercial work may reach every model"
    card = (home / "model.yaml").read_text()
    (home / "model.yaml").write_text(card.replace("commercial_use: true", "commercial_use: false"))
    check = doctor_checks.licences(settings)
    assert (check.state, check.found) == ("ok", "commercial work may not reach music")
    vain = settings.model_copy(update={"licences": LicenceSettings(accepted=["music", "musik"])})
    check = doctor_checks.licences(vain)
    assert (check.state, check.fix) == ("note", "correct REELMESH_LICENCES__ACCEPTED")
    assert "'music' is accepted, and its licence never allows commercial use" in check.found
