import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from loadtests.__main__ import UNREACHABLE, main
from loadtests.bench.inference import Addresses
from loadtests.runner import LOCUST_FILES, LoadReport, figures, percentile, run_load


@pytest.mark.parametrize(
    ("times", "share", "expected"),
    [
        pytest.param({10.0: 98, 200.0: 2}, 0.50, 10.0, id="the middle"),
        pytest.param({10.0: 98, 200.0: 2}, 0.99, 200.0, id="the tail"),
        pytest.param({}, 0.99, 0.0, id="nothing"),
    ],
)
def test_percentiles_come_from_the_histogram(times: dict[float, int], share: float, expected: float) -> None:
    assert percentile(times, share) == expected


def test_a_rounded_time_does_not_pass_the_longest_one() -> None:
    entry = {
        "name": "x",
        "num_requests": 10,
        "num_failures": 1,
        "response_times": {"160": 10},
        "max_response_time": 158.2,
    }
    row = figures(entry, span_s=2.0)
    assert (row.p99_ms, row.max_ms, row.per_second, row.failures) == (158.2, 158.2, 5.0, 1)


def test_a_run_without_answers_counts_as_failed() -> None:
    assert LoadReport(kind="oip", host="http://x", users=1, seconds=1, figures=[]).failed


@pytest.mark.parametrize("kind", LOCUST_FILES)
def test_locust_finds_one_user_in_each_file(kind: str) -> None:
    command = [sys.executable, "-m", "locust", "--locustfile", str(LOCUST_FILES[kind]), "--list"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True, cwd=LOCUST_FILES[kind].parents[1]
    )
    assert done.stdout.split()[-1] == {"oip": "OipUser", "jobs": "JobUser"}[kind]


def test_users_infer_for_three_seconds_and_every_answer_is_right(
    tiny_mesh: Addresses, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "figures" / "load.json"
    arguments = [
        "oip",
        "--models",
        "log_mel",
        "--host",
        str(tiny_mesh.http),
        "--users",
        "2",
        "--seconds",
        "3",
        "--json",
        str(target),
    ]
    assert main(arguments) == 0
    report = LoadReport.model_validate(json.loads(target.read_text()))
    (row,) = report.figures
    assert row.requests > 0
    assert row.failures == 0
    assert 0 <= row.p50_ms <= row.p99_ms <= row.max_ms
    assert "log_mel" in capsys.readouterr().out


def test_wrong_answers_are_counted_and_named(tiny_mesh: Addresses) -> None:
    report = run_load("oip", str(tiny_mesh.http), users=1, seconds=3, models="speech")
    assert report.failed
    assert report.figures[0].failures == report.figures[0].requests > 0
    assert "the queue is full" in report.problems[0]


def test_the_key_of_the_mesh_comes_with_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str | None] = []

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(self.headers["authorization"])
            self.send_error(403)

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

    monkeypatch.setenv("REELMESH_KEY", "rmk_x")
    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        report = run_load("oip", f"http://127.0.0.1:{server.server_port}", users=1, seconds=1, models="log_mel")
        server.shutdown()
        thread.join()
    assert report.failed
    assert set(told) == {"Bearer rmk_x"}


def test_a_mesh_that_is_not_there_is_said_before_anything_starts(
    free_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["jobs", "--host", f"http://127.0.0.1:{free_port}"]) == UNREACHABLE
    assert "nothing answers at" in capsys.readouterr().err


@pytest.mark.parametrize("users", ["0", "many", "1e9"])
def test_impossible_numbers_are_refused(users: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["oip", "--users", users])
    assert ended.value.code == 2
    assert "--users" in capsys.readouterr().err


def test_a_model_without_a_payload_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["oip", "--models", "log_mel,nonsense"])
    assert "no payload for ['nonsense']" in capsys.readouterr().err
