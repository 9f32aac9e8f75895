"""README's table of GPUs is what the last full run says."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.gpu import readme


def figure(precision: str, mode: str, ms: float, **more: Any) -> dict[str, Any]:
    return {"precision": precision, "mode": mode, "batch": 2, "median_ms": ms, **more}


def a_report() -> dict[str, Any]:
    apart = {"worst": 0.02, "rms": 0.0042, "finite": True}
    memory = {"peak_mib": 5678.4, "estimate_mib": 5432.1}
    side = {"title": "SDXL UNet", "share_mib": 9000.0, "alone_per_s": 20.0, "together_per_s": 12.0, "kept": 0.6}
    return {
        "began": "2026-12-01T10:00:00+00:00",
        "complete": True,
        "tiny": False,
        "machine": {
            "kind": "cuda",
            "device": "NVIDIA H200",
            "memory_mib": 143_000,
            "driver": "570.1",
            "cuda": "12.8",
            "packages": {"torch": "2.11.0"},
        },
        "networks": [
            {
                "name": "sdxl",
                "title": "SDXL UNet",
                "item": "1024x1024 picture",
                "batch": 2,
                "parameters": 2_567_463_684,
                "figures": [
                    figure("fp32", "eager", 301.25),
                    figure("bf16", "eager", 40.5, difference=apart, **memory),
                    figure("fp16", "eager", 41.0, difference=apart | {"finite": False}),
                    {"precision": "fp8", "mode": "compiled", "batch": 2, "skipped": "the time was over"},
                ],
                "batches": [{"batch": 1, "items_per_s": 30.126}, {"batch": 2, "skipped": "out of memory"}],
            }
        ],
        "sharing": {
            "processes": [side, side | {"title": "Whisper large-v3 encoder"}],
            "breach": {"asked_mib": 18_000.0, "refused": True, "calls_after": 9, "neighbour_calls": 80},
        },
    }


def test_the_table_of_the_readme_is_current() -> None:
    text = readme.README.read_text(encoding="utf-8")
    assert text == readme.page(text, readme.published(readme.RESULTS)), "run `python -m bench.gpu.readme`"


def test_without_a_run_there_is_one_sentence() -> None:
    text = f"before\n{readme.BEGIN}old\n{readme.END}after\n"
    assert readme.page(text, None) == f"before\n{readme.BEGIN}{readme.NOTHING}{readme.END}after\n"


def test_a_run_becomes_tables() -> None:
    lines = readme.section(a_report()).splitlines()
    assert lines[0].startswith("NVIDIA H200 (143,000 MiB), driver 570.1, CUDA 12.8, torch 2.11.0, 2026-12-01.")
    cells = [cell.strip() for cell in next(line for line in lines if line.startswith("| SDXL")).split("|")[1:-1]]
    assert cells == [
        "SDXL UNet",
        "2,567 M",
        "2 x 1024x1024 picture",
        "301.2",
        "-",
        "41.0 (not finite)",
        "40.5 (0.004)",
        *["-"] * 5,
        "5,678 (5,432)",
    ]
    assert "| SDXL UNet | 30.13 | - |" in lines
    assert lines[-1] == "asking for 18,000 MiB more was refused: 9 calls after it, and 80 of the other during it"
    widths = {line.count("|") for line in lines if line.startswith(("| network", "| ---", "| SDXL UNet | 2"))}
    assert len(widths) == 2, "each table's rows have as many cells as its head"


@pytest.mark.parametrize(
    "change",
    [{"complete": False}, {"tiny": True}, {"machine": {"kind": "cpu"}}],
    ids=["not finished", "tiny", "on a CPU"],
)
def test_a_run_that_measures_no_gpu_is_not_published(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps(a_report()), encoding="utf-8")
    assert readme.published(path) == a_report()
    path.write_text(json.dumps(a_report() | change), encoding="utf-8")
    assert readme.published(path) is None


def test_a_readme_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="gpu-table"):
        readme.page("nothing\n", None)
