"""bench/gpu, run small on the CPU as it runs at full size on CUDA."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import nn

from bench.gpu import command, machine, report, worker
from bench.gpu.children import Child, Ended, Late
from bench.gpu.measure import difference, timing
from bench.gpu.networks import network
from bench.gpu.precision import Fp8Linear, quantized, to_fp8

FOLDER = Path(command.__file__).parent
CPU = torch.device("cpu")
ALLOWED = {"torch", "transformers", "numpy", "onnxruntime", "bench"}


def run_alone(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a copy of its folder, with nothing of the checkout on the path."""
    shutil.copytree(FOLDER, folder / "gpu", ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    started = [sys.executable, "gpu", *arguments]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run(started, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("alone")
    told = run_alone(folder, "--device", "cpu", "--tiny", "vocoder", "whisper", "sharing")
    path = folder / "results" / "gpu-tiny.json"
    assert path.is_file(), told.stderr
    return told, json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.timeout(300)
def test_the_folder_runs_alone_and_tells_every_figure(ran) -> None:
    told, found = ran
    assert told.returncode == 0, told.stdout + told.stderr
    whisper = {each["name"]: each for each in found["networks"]}["whisper"]
    known = {(each["precision"], each["mode"]): each for each in whisper["figures"]}
    for precision, worst in (("fp16", 0.01), ("bf16", 0.05), ("fp8", 0.2)):
        figure = known[precision, "eager"]
        assert figure["median_ms"] > 0
        assert figure["difference"]["finite"]
        assert 0 < figure["difference"]["rms"] < worst
    assert known["bf16", "compiled"]["compile_s"] > 0
    assert known["fp32", "onnxruntime"]["difference"]["worst"] < 1e-4
    assert known["bf16", "graph"] == {
        "precision": "bf16",
        "mode": "graph",
        "batch": 1,
        "skipped": "CUDA graphs need a CUDA device",
    }
    assert [each["batch"] for each in whisper["batches"]] == [1, 2]
    assert whisper["parameters"] > 0
    assert found["machine"]["packages"]["torch"] == torch.__version__
    assert "Whisper large-v3 encoder     bf16   eager" in told.stdout


@pytest.mark.timeout(300)
def test_fp8_is_skipped_for_a_network_without_linear_layers(ran) -> None:
    vocoder = {each["name"]: each for each in ran[1]["networks"]}["vocoder"]
    reasons = {each.get("skipped") for each in vocoder["figures"] if each["precision"] == "fp8"}
    assert "no linear layer of this network holds in fp8" in reasons
    assert None not in reasons


@pytest.mark.timeout(300)
def test_a_process_beyond_its_share_is_refused_and_its_neighbour_goes_on(ran) -> None:
    sharing = ran[1]["sharing"]
    assert [each["name"] for each in sharing["processes"]] == ["sdxl", "whisper"]
    assert all(each["alone_per_s"] > 0 and each["together_per_s"] > 0 for each in sharing["processes"])
    breach = sharing["breach"]
    assert breach["refused"]
    assert breach["calls_after"] > 0
    assert breach["neighbour_calls"] > 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["sdxl", "svd", "cogvideox"])
def test_denoisers_run_in_every_format_eager_and_compiled(name: str) -> None:
    told: list[dict[str, Any]] = []
    case = worker.Case(network(name, tiny=True), CPU, 300, 0.01, told.append)
    groups = (worker.Group("fp32", ("eager",)), worker.Group("fp8", ("compiled",), compiled=True))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            for group in groups:
                case.group(group)
    finally:
        torch.set_num_threads(before)
    first, last = [event["figure"] for event in told if "figure" in event]
    assert "error" not in first, first
    assert last["fp8_layers"] > 0
    assert last["difference"]["rms"] < 0.2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--device", "cpu"], "--device cpu needs --tiny"),
        (["--budget-s", "3"], "--budget-s must be more than"),
        (["diffusion"], "no such case: diffusion; there are sdxl"),
    ],
    ids=["full size on a CPU", "no time", "an unknown case"],
)
def test_arguments_without_sense_end_with_2(arguments, says, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda_it_says_so_and_ends_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--json", str(tmp_path / "gpu.json")]) == command.LACKING == 3
    said = capsys.readouterr().err
    assert "no CUDA device" in said
    assert "--device cpu --tiny" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("versions", "says"),
    [
        ({"torch": "2.10.1+cu128"}, "torch is 2.10.1+cu128: 2.11 or newer is needed"),
        ({"torch": None}, "not installed: torch: pip install"),
    ],
    ids=["an old torch", "no torch"],
)
def test_what_is_missing_is_named(versions, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib_find = machine.importlib.util.find_spec
    monkeypatch.setattr(
        machine.importlib.util, "find_spec", lambda name: found(name) if versions.get(name, "") is not None else None
    )
    monkeypatch.setattr(machine, "version", lambda name: versions[name])
    assert says in (machine.lacking("cpu") or "")
    assert importlib_find is not machine.importlib.util.find_spec


def test_it_imports_nothing_but_what_a_gpu_machine_has() -> None:
    found = set()
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
            found |= {name.partition(".")[0] for name in names}
            assert not any(name.startswith("bench.") and not name.startswith("bench.gpu") for name in names), path
    assert found - set(sys.stdlib_module_names) <= ALLOWED


def test_when_the_time_is_over_every_figure_says_so() -> None:
    told: list[dict[str, Any]] = []
    case = worker.Case(network("whisper", tiny=True), CPU, -1, 0.01, told.append)
    case.all()
    figures = [event.get("figure") or event.get("batch") for event in told if "step" not in event]
    assert len(figures) == 15
    assert all("were over" in each["skipped"] for each in figures)


def test_a_failure_of_one_way_is_told_and_the_next_one_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> float:
        raise RuntimeError("the compiler crashed")

    monkeypatch.setattr(worker.Case, "compiled", failing)
    told: list[dict[str, Any]] = []
    case = worker.Case(network("whisper", tiny=True), CPU, 300, 0.01, told.append)
    with torch.no_grad():
        case.group(worker.Group("bf16", ("compiled", "compiled graph"), compiled=True))
        case.group(worker.Group("bf16", ("eager",)))
    crashed, after, eager = [event["figure"] for event in told if "figure" in event]
    assert crashed["error"] == "RuntimeError: the compiler crashed"
    assert after["skipped"] == "compiled was not had"
    assert eager["median_ms"] > 0


@pytest.mark.timeout(300)
def test_a_child_that_fails_tells_why_and_one_that_is_late_is_ended() -> None:
    spec = {"role": "neighbour", "name": "whisper", "device": "cpu", "tiny": True}
    with Child(spec | {"name": "nonesuch"}) as child, pytest.raises(Ended, match="nonesuch"):
        child.next(time.monotonic() + 120)
    with Child(spec) as child:
        ready = child.next(time.monotonic() + 120)
        assert ready is not None
        assert ready["batch"] == 1
        pid, scratch = child.pid, child.scratch
        (scratch / "weights").write_bytes(b"left")
        with pytest.raises(Late):
            child.next(time.monotonic())
    assert not psutil.pid_exists(pid)
    assert not scratch.exists()


@pytest.mark.timeout(300)
def test_a_killed_run_keeps_what_it_had_and_leaves_no_process(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    arguments = ["--device", "cpu", "--tiny", "whisper", "--json", str(path)]
    running = subprocess.Popen([sys.executable, str(FOLDER), *arguments], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    with running.stdout as said:
        said.readline()
        assert "eager" in said.readline()
        children = psutil.Process(running.pid).children(recursive=True)
        running.send_signal(signal.SIGKILL)
        running.wait()
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["complete"] is False
    assert found["networks"][0]["figures"][0]["median_ms"] > 0
    assert children
    assert psutil.wait_procs(children, timeout=30)[1] == []


def test_a_linear_layer_in_fp8_is_about_the_layer() -> None:
    torch.manual_seed(3)
    layers = nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 10)).bfloat16()
    x = torch.randn(2, 5, 64, dtype=torch.bfloat16)
    expected = layers[0](x).float()
    assert to_fp8(layers) == 1
    assert isinstance(layers[0], Fp8Linear)
    assert isinstance(layers[1], nn.Linear)
    with torch.no_grad():
        got = layers[0](x)
    assert got.dtype == torch.bfloat16
    assert difference(got.float(), expected.detach()).rms < 0.06


def test_a_tensor_of_zeros_and_a_large_one_have_fp8_too() -> None:
    zeros, _ = quantized(torch.zeros(2, 16))
    assert zeros.float().abs().max() == 0
    large, scale = quantized(torch.tensor([[3e38, -1e38]]))
    assert (large.float() * scale).tolist()[0] == pytest.approx([3e38, -1e38], rel=0.07)


def test_a_difference_says_when_an_output_is_not_finite() -> None:
    reference = torch.tensor([1.0, -2.0])
    assert difference(torch.tensor([1.0, -2.2]), reference) == (
        pytest.approx(0.1),
        pytest.approx(0.0894, rel=0.01),
        True,
    )
    assert difference(torch.tensor([float("nan"), -2.0]), reference).finite is False


def test_a_quick_call_is_timed_often_and_a_slow_one_at_least_three_times() -> None:
    assert timing(lambda: torch.zeros(1), CPU, seconds=5.0).runs == 50
    assert timing(lambda: torch.zeros(1), CPU, seconds=0.0).runs == 3


def test_failures_are_named_and_skips_are_none() -> None:
    figures = [
        {"precision": "fp8", "mode": "eager", "batch": 2, "error": "CUDA error"},
        {"precision": "fp16", "mode": "graph", "batch": 2, "difference": {"finite": False}},
        {"batch": 1, "skipped": "time"},
    ]
    found = {
        "networks": [{"name": "svd", "figures": figures, "batches": []}],
        "sharing": {"error": "the time was over"},
    }
    first, last = "svd fp8 eager 2: CUDA error", "svd fp16 graph 2: its output is not finite"
    assert report.failures(found) == [first, last, "sharing: the time was over"]
    found["sharing"] = {"breach": {"refused": False}}
    assert report.failures(found)[-1] == "sharing: a process got more than its share"


def test_the_parts_of_the_time_are_of_the_whole() -> None:
    assert sum(command.SHARES.values()) == 100


def test_a_step_that_its_time_ended_is_a_skipped_figure() -> None:
    step = {"kind": "batch", "batch": 8}
    assert command.unfinished(step, "late") == {"batch": {"batch": 8, "skipped": "late"}}
