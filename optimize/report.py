"""The report that is published beside a model file: what was made, from what, how equal, how fast; written by
optimize.run.

The one invariant: everything that is needed to judge or repeat an export stands in ``report.json``;
``report.md`` is the same for people.
"""

import platform
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

REPORT_FILE: Final = "report.json"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class ParityRow(_Part):
    """One output at one case; ``relative`` is the largest difference by the largest value expected."""

    case: str
    output: str
    shape: list[int]
    relative: float
    reason: str = ""


Precision = Literal["fp32", "fp16", "bf16", "fp8", "int8"]

Runner = Literal[
    "torch",
    "reference",
    "fp32",
    "fp16",
    "bf16",
    "fp8",
    "int8",
    "tensorrt fp32",
    "tensorrt fp16",
    "tensorrt bf16",
    "tensorrt fp8",
    "tensorrt int8",
]
"""What runs a model or a part: its reference (``torch`` in eager mode), or an export by precision, in ONNX Runtime
where nothing else is said."""


class TimingRow(_Part):
    """Median milliseconds at one case, all measured in turns in one run.

    Attributes:
        case: the sizes, with the batch where there is one.
        rounds: how many runs each median is of.
        ms: by runner. The first is the reference (``torch``, or ``reference`` where it is none), the last is what this
            report publishes; between them stand other published precisions, named as :attr:`Report.runner` names them.
        variant: the file of the part that was run, where there are several.
        batch: samples in a call; None where the part knows no batches.
    """

    case: str
    rounds: int
    ms: dict[Runner, float] = Field(min_length=2)
    variant: str = ""
    batch: int | None = None

    @property
    def reference_ms(self) -> float:
        """Of the reference."""
        return next(iter(self.ms.values()))

    @property
    def onnx_ms(self) -> float:
        """Of what this report publishes."""
        return next(reversed(self.ms.values()))

    @property
    def speedup(self) -> float:
        """How many times faster than the reference the export is."""
        return self.faster(next(reversed(self.ms)))

    def faster(self, runner: Runner) -> float:
        """How many times faster than the reference a runner is; KeyError where it was not measured."""
        return self.reference_ms / self.ms[runner] if self.ms[runner] else float("inf")


class QualityRow(_Part):
    """One measure of a whole model's result, with the exported part in place of torch's, against its bound."""

    measure: str
    value: float
    unit: str = ""
    bound: float
    better: Literal["higher", "lower"] = "higher"
    passed: bool
    reason: str = ""
    """Why nothing is proven, or what could not be compared; a row with a reason has failed."""


Gate = Literal["load", "parity", "quality", "memory", "time"]


class GateRow(_Part):
    """What one gate said; gates stand in the order they were passed."""

    gate: Gate
    outcome: Literal["passed", "failed", "skipped"]
    detail: str = ""


class MemoryRow(_Part):
    """Bytes of memory.

    Attributes:
        weights_bytes: of the weights as torch holds them.
        torch_peak_bytes: those, and the most that torch's allocator gave to one call.
        onnx_peak_bytes: what a process that loads the file and answers that call takes more than before; on a GPU, what
            the device does.
    """

    weights_bytes: int
    torch_peak_bytes: int
    onnx_peak_bytes: int


class VariantRow(_Part):
    """One file of a part: name, bytes and SHA-256 with its external data, and its dynamic axes (none: static)."""

    name: str
    onnx_bytes: int
    onnx_sha256: str
    dynamic_axes: list[str] = []


class TrialRow(_Part):
    """One attempt at INT8: nodes that were kept in float, the first quality row's value, and what it costs."""

    float_nodes: list[str]
    measure: str
    quality: float
    ms: float
    onnx_bytes: int
    accepted: bool


TENSORRT: Final[Mapping[Precision, Runner]] = {
    "fp32": "tensorrt fp32",
    "fp16": "tensorrt fp16",
    "bf16": "tensorrt bf16",
    "fp8": "tensorrt fp8",
    "int8": "tensorrt int8",
}
"""Engines of TensorRT by precision."""


class Report(_Part):
    """``report.json``; of a whole model that a recipe exports, or of a part of one."""

    model: str
    version: int
    recipe: str = ""
    """Of a whole model; empty for a part, whose declaration has the part's name."""
    part: str = ""
    """Empty for a whole model."""
    runtime: Literal["onnxruntime", "tensorrt"] = "onnxruntime"
    precision: Precision = "fp32"
    fingerprint: str
    """SHA-256 of all that decides the result: sources, card, versions of packages, and a part's weights."""
    weights_sha256: str = ""
    """Of the weights a part was exported from."""
    onnx_sha256: str
    onnx_bytes: int
    """Of all variants, with their external data."""
    opset: int
    relative_tolerance: float
    tools: dict[str, str]
    fixes: list[str] = []
    """Cures of exporter faults that were applied, by name."""
    variants: list[VariantRow] = []
    gates: list[GateRow] = []
    parity: list[ParityRow]
    quality: list[QualityRow] = []
    memory: MemoryRow | None = None
    trials: list[TrialRow] = []
    timing: list[TimingRow]
    threads: int
    machine: str

    @property
    def title(self) -> str:
        """The model, and its part."""
        return f"{self.model}: {self.part}" if self.part else self.model

    @property
    def runner(self) -> Runner:
        """What this report publishes, as timing rows name it."""
        return TENSORRT[self.precision] if self.runtime == "tensorrt" else self.precision

    @property
    def worst(self) -> float:
        """The largest relative difference found."""
        return max(row.relative for row in self.parity)

    @property
    def speedup(self) -> float | None:
        """Median over the cases of how many times faster the export is; None where nothing was timed."""
        return median(row.speedup for row in self.timing) if self.timing else None


def read_report(folder: Path) -> Report | None:
    """The report of a version folder; None where there is none that can be read."""
    try:
        return Report.model_validate_json((folder / REPORT_FILE).read_bytes())
    except (OSError, ValueError):
        return None


def machine() -> str:
    """The processor's name, as the kernel tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
