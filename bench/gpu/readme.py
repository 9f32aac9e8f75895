"""Writes the table of GPUs in README.md from the last full run: `python -m bench.gpu.readme`.

The one invariant: between the markers stands what bench/results/gpu.json says and nothing else, or one sentence that
there is no such run.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench.gpu.report import sharing_lines, shown

ROOT: Final = Path(__file__).resolve().parents[2]
README: Final = ROOT / "README.md"
RESULTS: Final = ROOT / "bench" / "results" / "gpu.json"
BEGIN: Final = "<!-- gpu-table -->\n"
END: Final = "<!-- /gpu-table -->\n"
NOTHING: Final = "No GPU figures have been measured yet: there was no CUDA device at hand.\n"
COLUMNS: Final = {
    "fp32": ("fp32", "eager"),
    "TF32": ("tf32", "eager"),
    "fp16": ("fp16", "eager"),
    "bf16": ("bf16", "eager"),
    "bf16, graph": ("bf16", "graph"),
    "bf16, compiled": ("bf16", "compiled"),
    "compiled, graph": ("bf16", "compiled graph"),
    "fp8, compiled": ("fp8", "compiled"),
    "ONNX Runtime, fp16": ("fp16", "onnxruntime"),
}
"""Headings, and the format and the way of running that they stand for."""

Report = dict[str, Any]


def published(path: Path) -> Report | None:
    """The report of a run at full size on CUDA that came to its end, or None."""
    if not path.is_file():
        return None
    told: Report = json.loads(path.read_text(encoding="utf-8"))
    whole = told["complete"] and not told["tiny"] and told["machine"]["kind"] == "cuda"
    return told if whole else None


def section(told: Report | None) -> str:
    """What stands between the markers."""
    if told is None:
        return NOTHING
    return "\n".join([*times(told), "", *batches(told), "", *sharing_lines(told["sharing"]), ""])


def times(told: Report) -> Iterator[str]:
    """Milliseconds of one call by format and way of running, with the difference from fp32, and the memory."""
    device = told["machine"]
    yield (
        f"{device['device']} ({device['memory_mib']:,} MiB), driver {device['driver']}, CUDA {device['cuda']}, "
        f"torch {device['packages']['torch']}, {told['began'][:10]}. Milliseconds of one call, in brackets the root "
        "mean square of the difference from fp32 as a part of the output's; MiB at the peak in bf16 and as estimated."
    )
    yield ""
    yield row(["network", "parameters", "batch", *COLUMNS, "peak (estimate)"])
    yield row(["---"] * (len(COLUMNS) + 4))
    for network in told["networks"]:
        known = {(each["precision"], each["mode"]): each for each in network["figures"]}
        cells = [cell(known.get(key, {})) for key in COLUMNS.values()]
        eager = known.get(("bf16", "eager"), {})
        memory = f"{shown(eager.get('peak_mib'))} ({shown(eager.get('estimate_mib'))})"
        parameters = f"{network['parameters'] / 1e6:,.0f} M" if "parameters" in network else "-"
        of = f"{network['batch']} x {network['item']}" if "batch" in network else "-"
        yield row([network.get("title", network["name"]), parameters, of, *cells, memory])


def cell(figure: Report) -> str:
    """One figure, or a dash where there is none."""
    if "median_ms" not in figure:
        return "-"
    apart = figure.get("difference")
    if apart is None:
        return f"{figure['median_ms']:.1f}"
    return (
        f"{figure['median_ms']:.1f} ({apart['rms']:.1g})"
        if apart["finite"]
        else f"{figure['median_ms']:.1f} (not finite)"
    )


def batches(told: Report) -> Iterator[str]:
    """Items a second by batch, eager in bf16."""
    sizes = sorted({each["batch"] for network in told["networks"] for each in network["batches"]})
    yield row(["items/s in bf16, eager, by batch", *map(str, sizes)])
    yield row(["---"] * (len(sizes) + 1))
    for network in told["networks"]:
        known = {each["batch"]: each.get("items_per_s") for each in network["batches"]}
        speeds = ["-" if known.get(size) is None else f"{known[size]:.2f}" for size in sizes]
        yield row([network.get("title", network["name"]), *speeds])


def row(cells: list[str]) -> str:
    """A row of a table in Markdown."""
    return "| " + " | ".join(cells) + " |"


def page(text: str, told: Report | None) -> str:
    """The README with its table replaced.

    Raises:
        ValueError: it has no markers.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md: put {BEGIN.strip()} and {END.strip()} where the table shall stand")
    return before + begin + section(told) + end + after


if __name__ == "__main__":
    README.write_text(page(README.read_text(encoding="utf-8"), published(RESULTS)), encoding="utf-8")
    sys.stdout.write(f"written: {README.relative_to(ROOT)}\n")
