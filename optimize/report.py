"""The report that is published beside a model file: what was made, from what, how equal, how fast; written by
optimize.run.

The one invariant: everything that is needed to judge or repeat an export stands in ``report.json``;
``report.md`` is the same for people.
"""

import platform
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

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


class TimingRow(_Part):
    """Median milliseconds at one case."""

    case: str
    rounds: int
    reference_ms: float
    onnx_ms: float

    @property
    def speedup(self) -> float:
        """How many times faster the export is."""
        return self.reference_ms / self.onnx_ms if self.onnx_ms else float("inf")


class Report(_Part):
    """``report.json``."""

    model: str
    version: int
    recipe: str
    fingerprint: str
    """SHA-256 of the recipe's sources, the card's export section and the packages' versions."""
    onnx_sha256: str
    onnx_bytes: int
    opset: int
    relative_tolerance: float
    tools: dict[str, str]
    parity: list[ParityRow]
    timing: list[TimingRow]
    threads: int
    machine: str

    @property
    def worst(self) -> float:
        """The largest relative difference found."""
        return max(row.relative for row in self.parity)

    def markdown(self) -> str:
        """``report.md``."""
        lines = [
            f"# {self.model}, version {self.version}",
            "",
            f"Recipe `{self.recipe}`, opset {self.opset}, {self.onnx_bytes:,} bytes.",
            f"SHA-256 `{self.onnx_sha256}`.",
            "",
            f"Made with {', '.join(f'{name} {version}' for name, version in self.tools.items())}.",
            "",
            f"## Parity with the reference (allowed: {self.relative_tolerance:.0e} of the output's scale)",
            "",
            "| case | output | shape | difference |",
            "|---|---|---|---|",
            *(
                f"| {row.case} | {row.output} | {' x '.join(map(str, row.shape))} | {row.relative:.1e} |"
                for row in self.parity
            ),
            "",
            f"## Speed ({self.machine}, {self.threads} threads, medians, measured in turns)",
            "",
            "| case | reference | ONNX Runtime | times faster |",
            "|---|---|---|---|",
            *(
                f"| {row.case} | {row.reference_ms:.2f} ms | {row.onnx_ms:.2f} ms | {row.speedup:.2f} |"
                for row in self.timing
            ),
            "",
        ]
        return "\n".join(lines)


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
