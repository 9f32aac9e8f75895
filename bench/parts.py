"""`make bench-parts`: parts of tiny and medium models, exported and proven; torch against ONNX Runtime by precision.

Each figure is a ratio of runners that ran in turns, on the same threads, warm, in the same seconds. The one invariant:
what is timed is what `reelmesh optimize` published, gates and all; a part that fails is told as failed.
"""

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from pydantic import BaseModel
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.medium import MEDIUM, medium_model_folder
from optimize.page import collect, write_page
from optimize.parts.part import FAMILIES, family_name, find_family
from optimize.parts.run import optimize_parts
from optimize.parts.work import Asked, PartOutcome
from optimize.report import machine
from optimize.threads import THREADS
from serving.backends.ray.tiny import TINY
from serving.backends.ray.tiny.build import tiny_model_folder
from serving.errors import ReelmeshError
from serving.repository.load import load_repository
from serving.repository.model import Model
from serving.repository.part_file import Precision
from serving.settings import Settings
from serving.weights.cache import WeightsCache

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "bench" / "parts.json"
PAGE: Final = ROOT / "docs" / "optimize"
"""Kept in git: docs/optimize.md shows the page."""
LEAST_ONNX: Final = 1.5
LEAST_INT8: Final = 1.3
SAME: Final = {
    "cogvideox_5b",
    "ltx_video_i2v",
    "ltx2_i2v",
    "musicgen_medium",
    "mms_tts_hin",
    "nllb_600m",
    "ace_step_turbo",
}
"""Models whose parts are those of another one here, at tiny size."""


MEDIUM_ENDING: Final = "_medium"
PRECISIONS: Final[Mapping[bool, Sequence[Precision]]] = {False: ("fp32", "int8"), True: ("fp32", "fp16", "int8")}
"""Of tiny models, and of medium ones."""


class Row(BaseModel):
    """One part: median over its cases of how many times faster than torch, and than fp32, it is; or why it failed."""

    model: str
    part: str
    precision: Precision
    over_torch: float | None = None
    over_fp32: float | None = None
    parity: float | None = None
    failed: str = ""


class Results(BaseModel):
    """``bench/parts.json``."""

    machine: str
    threads: int
    rows: list[Row]

    def medians(self, *, medium: bool) -> dict[str, float]:
        """Over the parts of tiny or of medium models: fp32 over torch, INT8 over fp32."""
        rows = [row for row in self.rows if is_medium(row.model) is medium]
        onnx = [row.over_torch for row in rows if row.precision == "fp32" and row.over_torch is not None]
        int8 = [row.over_fp32 for row in rows if row.precision == "int8" and row.over_fp32 is not None]
        return {"ONNX Runtime over torch": median(onnx or [0.0]), "INT8 over fp32": median(int8 or [0.0])}


def row_of(model: str, precision: Precision, outcome: PartOutcome) -> Row:
    """What came of a part."""
    row = Row(model=model, part=outcome.part, precision=precision)
    report = outcome.report
    if report is None:
        return row.model_copy(update={"failed": str(outcome.error)})
    over_fp32 = [timing.ms["fp32"] / timing.ms[precision] for timing in report.timing if "fp32" in timing.ms]
    found = {
        "over_torch": report.speedup,
        "parity": report.worst,
        "over_fp32": median(over_fp32) if over_fp32 else None,
    }
    return row.model_copy(update=found)


def measure(model: Model, precision: Precision, weights: WeightsCache) -> list[Row]:
    """All parts of a model in a precision; a model that fails as a whole is one row."""
    wanted = MEDIUM[model.name.removesuffix(MEDIUM_ENDING)].parts if is_medium(model.name) else ()
    try:
        family = find_family(model.name, model.card)
        if precision == "int8" and not any(part.int8 for part in family.parts.values()):
            return []
        outcomes = optimize_parts(model, Asked(wanted, precision), weights)
    except ReelmeshError as error:
        return [Row(model=model.name, part="", precision=precision, failed=str(error))]
    return [row_of(model.name, precision, outcome) for outcome in outcomes]


def run(names: Sequence[str], home: Path) -> Results:
    """Export and time everything, and write the page if it is everything."""
    made = models(names, home / "models")
    weights = WeightsCache.of(Settings(home=home))
    rows: list[Row] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for model in progress.track(made, description="models"):
            for precision in PRECISIONS[is_medium(model.name)]:
                rows += measure(model, precision, weights)
    if not names:
        write_page(PAGE, collect([home / "models"]), [Path("tiny and medium models of bench/parts.py")])
    return Results(machine=machine(), threads=THREADS, rows=rows)


def models(names: Sequence[str], into: Path) -> list[Model]:
    """Tiny and medium models, made: those that are named, or all."""
    ours = load_repository([ROOT / "model_repository"])
    small = [name for name in TINY if family_name(ours.get(name).card) in FAMILIES and name not in SAME]
    for name in names or (*small, *(f"{name}{MEDIUM_ENDING}" for name in MEDIUM)):
        make = medium_model_folder if is_medium(name) else tiny_model_folder
        make(ours.get(name.removesuffix(MEDIUM_ENDING)), into)
    return list(load_repository([into]).models.values())


def is_medium(name: str) -> bool:
    """By its name, ``sdxl_medium``."""
    return name.endswith(MEDIUM_ENDING)


def table(results: Results) -> Table:
    """For people."""
    found = Table("model", "part", "precision", "over torch", "over fp32", "difference")
    for row in results.rows:
        figures = [f"{value:.2f}x" if value else "" for value in (row.over_torch, row.over_fp32)]
        parity = f"{row.parity:.0e}" if row.parity is not None else row.failed[:60]
        found.add_row(row.model, row.part, row.precision, *figures, parity)
    return found


def main(names: Sequence[str]) -> int:
    """Measure, print, and keep the run of all models; 1 where an export failed, not where INT8 was refused."""
    with tempfile.TemporaryDirectory(prefix="reelmesh-parts-") as home:
        results = run(names, Path(home))
    console = Console()
    console.print(table(results))
    for size in ("tiny", "medium"):
        medians = results.medians(medium=size == "medium")
        for (what, found), least in zip(medians.items(), (LEAST_ONNX, LEAST_INT8), strict=True):
            console.print(f"{size} models: {what}, median over the parts: {found:.2f}x (aim {least}x)")
    if not names:
        RESULTS.write_text(json.dumps(results.model_dump(), indent=1) + "\n", encoding="utf-8")
        console.print(f"written: {RESULTS.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")
    return 1 if any(row.failed and row.precision != "int8" for row in results.rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
