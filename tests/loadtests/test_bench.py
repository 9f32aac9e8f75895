import asyncio
import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from loadtests import payloads
from loadtests.bench import inference, mesh, wire
from loadtests.bench.__main__ import UNREACHABLE, main
from loadtests.bench.inference import Addresses
from loadtests.bench.podcast import of_record
from loadtests.bench.results import Results, show, this_machine

ROOT = Path(__file__).parents[2]
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


def test_a_podcasts_figures_come_from_the_jobs_record() -> None:
    podcast = of_record(JOB)
    assert (podcast.seconds, podcast.waiting_s, podcast.real_time_factor) == (12.5, 0.5, 0.5)
    assert [(stage.name, stage.seconds, stage.parts) for stage in podcast.stages] == [("voices", 2.0, 6)]


async def test_every_path_is_measured_at_every_concurrency_beside_its_baseline(
    tiny_mesh: Addresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "WARM_UP_S", 0.05)
    paths = [
        way for way in inference.paths_of(tiny_mesh, tiny_mesh, ROOT / "model_repository") if way.model == "log_mel"
    ]
    told: list[str] = []
    rows = await inference.measure_all(paths, 0.1, told.append)
    names = [(row.path, row.wire, row.concurrency) for row in rows]
    assert len(names) == len(set(names)) == 15
    assert all(row.requests > 0 and 0 < row.p50_ms <= row.p99_ms for row in rows)
    assert told[0].startswith("warming up")
    output = io.StringIO()
    show(
        Results(started_at="now", machine=this_machine(), rows=rows, podcast=of_record(JOB), help_s=0.3),
        Console(file=output, width=140),
    )
    for text in ("in process", "bare Triton", "mesh over Triton", "%", "real-time factor 0.50", "under 0.5"):
        assert text in output.getvalue()


@pytest.mark.parametrize("loop", [wire.http_loop, wire.grpc_loop], ids=["HTTP", "gRPC"])
async def test_a_wrong_answer_ends_the_measurement(tiny_mesh: Addresses, loop) -> None:
    address = tiny_mesh.http if loop is wire.http_loop else tiny_mesh.grpc
    with pytest.raises(ExceptionGroup) as caught:
        await loop(address, payloads.speech(), 2, 0.5)
    assert "503" in str(caught.value.exceptions[0]) or "the queue is full" in str(caught.value.exceptions[0])


def test_the_addresses_are_read_when_their_json_is_whole() -> None:
    assert mesh.complete('{\n "http": "x",') is None
    assert mesh.complete('{\n "http": "x"\n}') == {"http": "x"}


def test_a_mesh_that_does_not_start_is_reported_with_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "import sys; print('reelmesh: port 8000 is taken', file=sys.stderr); sys.exit(4)"
    monkeypatch.setattr(mesh, "reelmesh", lambda: [sys.executable, "-c", script])
    with pytest.raises(mesh.NotStarted, match="port 8000 is taken"), mesh.running(tmp_path):
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


async def test_threads_measure_calls_without_a_wire() -> None:
    sample = await wire.thread_loop(lambda: None, 2, 0.05)
    assert len(sample.latencies) > 10
    assert sample.seconds == pytest.approx(0.05, abs=0.2)
    await asyncio.sleep(0)
