"""A report in words and Markdown tables; used by optimize.publish for ``report.md`` and by the page of all reports.

The one invariant: a section stands there only if there is something to say, and every number has its unit.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from optimize.report import QualityRow, Report, Runner, TrialRow

RUNNERS: Final[Mapping[Runner, str]] = {
    "torch": "torch",
    "reference": "reference",
    "fp32": "ONNX fp32",
    "fp16": "ONNX fp16",
    "bf16": "ONNX bf16",
    "fp8": "ONNX fp8",
    "int8": "ONNX INT8",
    "tensorrt fp32": "TensorRT fp32",
    "tensorrt fp16": "TensorRT fp16",
    "tensorrt bf16": "TensorRT bf16",
    "tensorrt fp8": "TensorRT fp8",
    "tensorrt int8": "TensorRT INT8",
}
"""Runners of timing rows and what people call them, in the order in which tables and plots show them."""


def markdown(report: Report) -> str:
    """``report.md``."""
    lines = [f"# {report.title}, version {report.version}", "", *_made(report)]
    allowed = f"allowed: {report.relative_tolerance:.0e} of the output's scale"
    sections = (
        ("Variants", _variants(report)),
        ("Gates", table(("gate", "outcome", ""), [(row.gate, row.outcome, row.detail) for row in report.gates])),
        (f"Parity with the reference ({allowed})", _parity(report)),
        ("Quality of whole results, against the reference's", quality_table(report.quality)),
        ("Memory", _memory(report)),
        (f"Speed ({report.machine}, {report.threads} threads, medians, measured in turns)", _timing(report)),
        ("INT8: what was tried", trials_table(report.trials)),
    )
    for heading, body in sections:
        lines += ["", f"## {heading}", "", *body] if body else []
    return "\n".join([*lines, ""])


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; none where there are no rows."""
    body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return ["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *body] if body else []


def size(count: float) -> str:
    """Bytes in the unit that suits them."""
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}" if count < 1000 * scale else f"{count / scale:,.0f} {unit}"
    return f"{count:.0f} bytes"


def milliseconds(value: float) -> str:
    """Three digits at least, and two behind the point for what is small."""
    return f"{value:.2f} ms" if value < 10 else f"{value:.1f} ms" if value < 1000 else f"{value:,.0f} ms"  # noqa: PLR2004


def quality_value(row: QualityRow, value: float) -> str:
    """A measure or its bound with its unit."""
    if math.isinf(value):
        return "equal" if value > 0 and row.better == "higher" else "-"
    digits = f"{value:.1f}" if row.unit == "dB" else f"{value:.4g}"
    return f"{digits} {row.unit}".rstrip()


def quality_table(rows: Sequence[QualityRow]) -> list[str]:
    """Measures, values and bounds."""
    return table(
        ("measure", "value", "bound", "outcome"),
        [
            (
                row.measure,
                quality_value(row, row.value),
                f"{'at least' if row.better == 'higher' else 'at most'} {quality_value(row, row.bound)}",
                "passed" if row.passed else f"failed: {row.reason}".rstrip(": "),
            )
            for row in rows
        ],
    )


def trials_table(trials: Sequence[TrialRow]) -> list[str]:
    """Every attempt at INT8, in the order in which it was made."""
    return table(
        ("nodes in float", "measure", "value", "time", "size", "accepted"),
        [
            (
                _names(trial.float_nodes),
                trial.measure,
                f"{trial.quality:.4g}",
                milliseconds(trial.ms),
                size(trial.onnx_bytes),
                "yes" if trial.accepted else "no",
            )
            for trial in trials
        ],
    )


def _names(nodes: Sequence[str], most: int = 4) -> str:
    """How many, and the first of them."""
    shown = ", ".join(f"`{node}`" for node in nodes[:most])
    more = f" and {len(nodes) - most} more" if len(nodes) > most else ""
    return f"{len(nodes)}: {shown}{more}" if nodes else "none"


def _made(report: Report) -> list[str]:
    what = f"Recipe `{report.recipe}`" if report.recipe else f"Part `{report.part}`"
    fixes = f"Exporter faults cured: {', '.join(report.fixes)}."
    return [
        f"{what}, {RUNNERS[report.runner]}, opset {report.opset}, {report.onnx_bytes:,} bytes.",
        f"SHA-256 `{report.onnx_sha256}`.",
        *([f"Weights `{report.weights_sha256}`."] if report.weights_sha256 else []),
        "",
        f"Made with {', '.join(f'{name} {version}' for name, version in report.tools.items())}.",
        *([fixes] if report.fixes else []),
    ]


def _variants(report: Report) -> list[str]:
    rows = [
        (row.name, size(row.onnx_bytes), ", ".join(row.dynamic_axes) or "none: static", f"`{row.onnx_sha256[:16]}`")
        for row in report.variants
    ]
    return table(("variant", "size", "dynamic axes", "SHA-256 begins"), rows)


def _parity(report: Report) -> list[str]:
    rows = [
        (row.case, row.output, " x ".join(map(str, row.shape)), row.reason or f"{row.relative:.1e}")
        for row in report.parity
    ]
    return table(("case", "output", "shape", "difference"), rows)


def _memory(report: Report) -> list[str]:
    memory = report.memory
    if memory is None:
        return []
    rows = [
        ("weights in torch", size(memory.weights_bytes)),
        ("exported files", size(report.onnx_bytes)),
        ("peak, torch's allocations", size(memory.torch_peak_bytes)),
        (f"peak, a process with {RUNNERS[report.runner]}", size(memory.onnx_peak_bytes)),
    ]
    return table(("what", "size"), rows)


def runners_of(reports: Iterable[Report]) -> list[Runner]:
    """Every runner that was timed, in the order of :data:`RUNNERS`."""
    timed = {runner for report in reports for row in report.timing for runner in row.ms}
    return [runner for runner in RUNNERS if runner in timed]


def _timing(report: Report) -> list[str]:
    runners = runners_of([report])
    rows = [
        (
            f"{row.variant}: {row.case}" if row.variant else row.case,
            *(milliseconds(row.ms[runner]) if runner in row.ms else "-" for runner in runners),
            f"{row.speedup:.2f}",
        )
        for row in report.timing
    ]
    return table(("case", *(RUNNERS[runner] for runner in runners), "times faster"), rows)
