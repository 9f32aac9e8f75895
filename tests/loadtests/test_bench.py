import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from loadtests import payloads
from loadtests.bench import h2load, inference, mesh, wire
from loadtests.bench.__main__ import UNREACHABLE, main
from loadtests.bench.h2load import Report
from loadtests.bench.inference import Addresses
from loadtests.bench.models import write_repository
from loadtests.bench.podcast import of_record
from loadtests.bench.results import (
    BARE,
    MESH_RAY,
    MESH_TRITON,
    PLAIN_RAY,
    Large,
    Results,
    Row,
    show,
    targets_of,
    this_machine,
)
from serving.repository.lint import lint

JOB = {
    "created_at": 100.0,
    "started_at": 100.5,
    "finished_at": 112.5,
    "output": {"facts": {"duration_s": 25.0}},
    "stages": [
        {"name": "voices", "started_at": 101.0, "ended_at": 103.0, "parts": 6, "models": ["audio/speech"]},
        {"name": "burn_in", "started_at": None, "ended_at": None, "parts": 0, "models": []},
    ],
}
LARGE = Large(mib=64, memcpy_ms=30, model_ms=20, shared_ms=60, mesh_grpc_ms=500, bare_grpc_ms=450)
PRINTED = """
requests: 12 total, 14 started, 12 done, 12 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 12 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 2.63MB (2760841) total, 7.43KB (7611) headers (space savings 96.26%), 1.2KB (1200) data
"""
ASKED = wire.Request("http://127.0.0.1:1/x", b"", answer_bytes=100)


def test_a_podcasts_figures_come_from_the_jobs_record() -> None:
    podcast = of_record(JOB)
    assert (podcast.seconds, podcast.waiting_s, podcast.real_time_factor) == (12.5, 0.5, 0.5)
    assert [(stage.name, stage.seconds, stage.parts) for stage in podcast.stages] == [("voices", 2.0, 6)]


def test_every_way_is_measured_at_every_concurrency_in_turns(
    tiny_mesh: Addresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "WARM_UP_S", 0.1)
    ways = inference.over_the_wire(payloads.log_mel(), BARE, tiny_mesh)
    ways += inference.over_the_wire(payloads.log_mel(), MESH_TRITON, tiny_mesh)
    told: list[str] = []
    rows = inference.measure_all(ways, 0.2, told.append, concurrencies=(1, 16), rounds=2)
    names = [(row.path, row.wire, row.concurrency) for row in rows]
    assert len(names) == len(set(names)) == 8
    assert all(row.requests > 0 and 0 < row.p50_ms <= row.p99_ms for row in rows)
    assert [text.split(", ")[1:3] for text in told[4:8]] == [text.split(", ")[1:3] for text in told[8:12]]
    output = io.StringIO()
    results = Results(
        started_at="now", machine=this_machine(), rows=rows, large=LARGE, targets=targets_of(rows, LARGE),
        podcast=of_record(JOB), help_s=0.3, skipped=["the moon"],
    )  # fmt: skip
    show(results, Console(file=output, width=160))
    for text in ("bare Triton", "p99 of bare", "at least 0.9", "at most 1.3", "real-time factor 0.50", "the moon"):
        assert text in output.getvalue()


def test_a_way_that_fails_is_told_and_the_others_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "WARM_UP_S", 0.01)

    def fails_from(least: int) -> inference.Measure:
        def measure(concurrency: int, seconds: float) -> wire.Sample:
            if concurrency >= least:
                raise wire.WrongAnswer("3 of 9 answers were errors")
            return wire.Sample([0.001], seconds)

        return measure

    limits = {BARE: 100, MESH_TRITON: 16, MESH_RAY: 0}
    ways = [inference.Way("mlp", name, "HTTP", fails_from(least)) for name, least in limits.items()]
    skipped: list[str] = []
    rows = inference.measure_all(ways, 0.01, str, concurrencies=(4, 16, 64), rounds=2, skipped=skipped)
    assert [(row.path, row.concurrency) for row in rows] == [(BARE, 4), (MESH_TRITON, 4), (BARE, 16), (BARE, 64)]
    problem = "3 of 9 answers were errors"
    assert skipped == [
        f"mlp, {MESH_RAY}, HTTP, 2 at a time and more: {problem}",
        f"mlp, {MESH_TRITON}, HTTP, 16 at a time and more: {problem}",
    ]


def row(path: str, per_second: float, p99_ms: float = 10.0, kind: str = "HTTP") -> Row:
    return Row(
        model="mlp", path=path, wire=kind, concurrency=16, requests=1, per_second=per_second, p50_ms=1, p99_ms=p99_ms
    )


def test_targets_compare_rows_of_the_same_place() -> None:
    rows = [
        row(BARE, 9000), row(MESH_TRITON, 8100, 11.6), row(MESH_RAY, 3000), row(PLAIN_RAY, 200),
        row(BARE, 10_000, kind="gRPC"),
    ]  # fmt: skip
    reached = [(round(target.value, 3), target.goal, target.met) for target in targets_of(rows, LARGE)]
    assert reached == [
        (0.9, 0.9, True),
        (1.16, 1.15, False),
        (15.0, 15, True),
        (0.3, 0.278, True),
        (1.2, 1.3, True),
        (0.9, 0.85, True),
    ]
    assert targets_of([row(MESH_TRITON, 1)], None) == []


def test_a_model_that_answers_otherwise_is_not_measured(tiny_mesh: Addresses) -> None:
    with pytest.raises(wire.WrongAnswer, match="another than in process"):
        inference.over_the_wire(payloads.log_mel(), BARE, tiny_mesh, wanted=b"\1\2\3\4")


@pytest.mark.parametrize("ask", [wire.http_request, wire.grpc_request], ids=["HTTP", "gRPC"])
def test_a_server_that_refuses_is_told_with_its_words(tiny_mesh: Addresses, ask) -> None:
    address = tiny_mesh.http if ask is wire.http_request else tiny_mesh.grpc
    with pytest.raises(wire.WrongAnswer, match="the queue is full"):
        ask(address, payloads.speech())


@pytest.mark.parametrize("grpc", [False, True], ids=["HTTP", "gRPC"])
def test_errors_under_load_end_the_measurement(tiny_mesh: Addresses, grpc: bool) -> None:
    ask = wire.grpc_request if grpc else wire.http_request
    right, _ = ask(tiny_mesh.grpc if grpc else tiny_mesh.http, payloads.log_mel())
    body = payloads.speech().grpc() if grpc else payloads.speech().http()[0]
    framed = b"\0" + len(body).to_bytes(4, "big") + body if grpc else body
    headers = right.headers if grpc else payloads.speech().http()[1]
    url = right.url.replace("log_mel", "speech")
    with pytest.raises(wire.WrongAnswer, match="answers"):
        h2load.measure(wire.Request(url, framed, headers, grpc, right.answer_bytes), 2, 0.3)


def test_what_h2load_prints_is_read() -> None:
    assert h2load.report(PRINTED) == Report(12, 0, 1200)
    h2load.check(Report(12, 0, 1200), ASKED)
    assert h2load.report(PRINTED.replace("0 5xx", "3 5xx").replace("0 timeout", "2 timeout")).wrong == 5
    with pytest.raises(wire.WrongAnswer, match="printed something else"):
        h2load.report("nothing")
    with pytest.raises(wire.WrongAnswer, match="3 of 12 answers were errors"):
        h2load.check(Report(12, 3, 1200), ASKED)
    with pytest.raises(wire.WrongAnswer, match="not 100 each"):
        h2load.check(Report(12, 0, 1100), ASKED)


def test_latencies_are_those_of_answers_alone() -> None:
    assert h2load.read_log("1795\t200\t2576\n1796\t503\t10\n1797\t200\t1000000\n1798\t200") == [0.002576, 1.0]


def test_requests_in_flight_are_connections_or_streams(tmp_path: Path) -> None:
    http = h2load.command(ASKED, 64, 1.5, tmp_path, tmp_path)
    assert http[http.index("-c") + 1] == "64"
    assert {"--h1", "1500ms"} <= set(http)
    grpc = h2load.command(wire.Request(ASKED.url, b"", grpc=True), 64, 1, tmp_path, tmp_path)
    assert (grpc[grpc.index("-c") + 1], grpc[grpc.index("-m") + 1]) == ("8", "8")
    assert "--h1" not in grpc


def test_the_repository_holds_each_model_twice_with_one_line_changed(tmp_path: Path) -> None:
    models = write_repository(tmp_path)
    assert [model.name for model in models] == ["mlp", "conv"]
    for model in models:
        [here], [there] = (
            set((tmp_path / name / "config.pbtxt").read_text().splitlines()) - set(other.splitlines())
            for name, other in (
                (model.name, (tmp_path / f"{model.name}_on_ray" / "config.pbtxt").read_text()),
                (f"{model.name}_on_ray", (tmp_path / model.name / "config.pbtxt").read_text()),
            )
        )
        assert (here, there) == ('backend: "onnxruntime"', 'backend: "ray"')
        output = model.session().run(None, model.payload.arrays())[0]
        assert output.shape[0] == 1
        assert output.std() > 0
    assert [finding for finding in lint([tmp_path]) if finding.severity == "error"] == []


def test_the_addresses_are_read_when_their_json_is_whole() -> None:
    assert mesh.complete('{\n "http": "x",') is None
    assert mesh.complete('{\n "http": "x"\n}') == {"http": "x"}


def test_a_mesh_that_does_not_start_is_reported_with_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "import sys; print('reelmesh: port 8000 is taken', file=sys.stderr); sys.exit(4)"
    monkeypatch.setattr(mesh, "reelmesh", lambda: [sys.executable, "-c", script])
    with (
        pytest.raises(mesh.NotStarted, match=r"`reelmesh serve` did not become ready: .*port 8000 is taken"),
        mesh.running(tmp_path, "serve"),
    ):
        pytest.fail("it did start")


def test_a_stubborn_mesh_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh, "STOP_S", 0.3)
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    mesh.stop(process)
    assert process.returncode == -9


def test_help_is_timed() -> None:
    assert 0 < mesh.help_seconds() < 30


def test_a_mesh_that_is_not_there_is_said_at_once(free_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--host", f"http://127.0.0.1:{free_port}"]) == UNREACHABLE


def test_a_missing_load_generator_is_said_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(h2load.NotInstalled, match="nghttp2-client"):
        h2load.program()


def test_threads_measure_calls_without_a_wire() -> None:
    sample = wire.thread_loop(lambda: None, 2, 0.05)
    assert len(sample.latencies) > 10
    assert sample.seconds == pytest.approx(0.05, abs=0.5)
