"""What the benchmark found, as it is written to JSON and printed; used by loadtests.bench.

The one invariant: every figure of a run stands beside the baseline it was measured with, from the same
minutes.
"""

import importlib.metadata
import platform
from pathlib import Path
from typing import Final

import psutil
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

PACKAGES: Final = ("reelmesh", "ray", "onnxruntime", "grpcio", "numpy")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Row(_Part):
    """One path to one model at one concurrency; times in milliseconds."""

    model: str
    path: str
    wire: str
    concurrency: int
    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float


class StageTime(_Part):
    """One stage of the podcast."""

    name: str
    seconds: float
    parts: int
    models: list[str]


class Podcast(_Part):
    """Where the time of one podcast went; ``seconds`` from submission to the end of the job."""

    seconds: float
    programme_s: float
    waiting_s: float
    stages: list[StageTime]

    @property
    def real_time_factor(self) -> float:
        """Seconds of work per second of programme; below 1 is faster than real time."""
        return self.seconds / self.programme_s


class Machine(_Part):
    """Where it was measured. ``load`` is the machine's load before the run, which should be near 0."""

    processor: str
    cores: int
    memory_gib: float
    load: float
    python: str
    packages: dict[str, str]


class Results(_Part):
    """A whole run."""

    started_at: str
    machine: Machine
    help_s: float | None = None
    up_s: float | None = None
    rows: list[Row] = []
    podcast: Podcast | None = None
    skipped: list[str] = []


def this_machine() -> Machine:
    """The machine and the versions that matter."""
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return Machine(
        processor=names[0] if names else platform.machine(),
        cores=psutil.cpu_count() or 1,
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        load=round(psutil.getloadavg()[0], 2),
        python=platform.python_version(),
        packages={name: importlib.metadata.version(name) for name in PACKAGES},
    )


def show(results: Results, console: Console) -> None:
    """Print everything."""
    machine = results.machine
    console.print(
        f"{machine.processor}, {machine.cores} cores, {machine.memory_gib} GiB, load {machine.load} at the start; "
        f"Python {machine.python}, " + ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    )
    if results.help_s is not None:
        console.print(f"reelmesh --help: {results.help_s:.2f} s (aim: under 0.5)")
    if results.up_s is not None:
        console.print(f"reelmesh up, from command to ready: {results.up_s:.1f} s (aim: under 25)")
    if results.rows:
        console.print(inference_table(results.rows))
    if results.podcast is not None:
        show_podcast(results.podcast, console)
    for skipped in results.skipped:
        console.print(f"not measured: {skipped}")


def inference_table(rows: list[Row]) -> Table:
    """Throughput and latency, and throughput relative to the first path of the same model and concurrency."""
    table = Table("model", "path", "wire", "at a time", "per second", "p50", "p99", "of bare", title="Inference")
    bare = {(row.model, row.wire, row.concurrency): row.per_second for row in rows if row.path.startswith("bare")}
    for row in rows:
        baseline = bare.get((row.model, row.wire, row.concurrency))
        table.add_row(
            row.model,
            row.path,
            row.wire,
            str(row.concurrency),
            f"{row.per_second:,.0f}",
            f"{row.p50_ms:.2f} ms",
            f"{row.p99_ms:.2f} ms",
            f"{row.per_second / baseline:.0%}" if baseline and not row.path.startswith("bare") else "",
        )
    return table


def show_podcast(podcast: Podcast, console: Console) -> None:
    """Stages with bars, and the real-time factor."""
    table = Table("stage", "seconds", "share", "calls", "models", title="Podcast")
    for stage in podcast.stages:
        share = stage.seconds / podcast.seconds
        table.add_row(
            stage.name, f"{stage.seconds:.2f}", f"{share:4.0%} {'█' * round(share * 30)}", str(stage.parts),
            ", ".join(stage.models),
        )  # fmt: skip
    console.print(table)
    console.print(
        f"{podcast.seconds:.1f} s for {podcast.programme_s:.1f} s of programme: "
        f"real-time factor {podcast.real_time_factor:.2f} (aim: 60 s for 30 s), {podcast.waiting_s:.2f} s in the queue"
    )
