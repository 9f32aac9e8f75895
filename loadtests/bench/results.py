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

IN_PROCESS: Final = "in process"
BARE: Final = "bare Triton"
MESH_TRITON: Final = "mesh over Triton"
MESH_RAY: Final = "mesh over Ray"
PLAIN_RAY: Final = "plain Ray Serve"
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


class Large(_Part):
    """One large tensor there and back, in milliseconds; ``model_ms`` is the model's own time by its statistics."""

    mib: int
    memcpy_ms: float
    model_ms: float
    shared_ms: float
    mesh_grpc_ms: float
    bare_grpc_ms: float | None


class Target(_Part):
    """One figure that the mesh is held to; at least, or else at most."""

    name: str
    value: float
    goal: float
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        return self.value >= self.goal if self.at_least else self.value <= self.goal


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
    large: Large | None = None
    targets: list[Target] = []
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
    if results.large is not None:
        show_large(results.large, console)
    if results.targets:
        console.print(target_table(results.targets))
    if results.podcast is not None:
        show_podcast(results.podcast, console)
    for skipped in results.skipped:
        console.print(f"not measured: {skipped}")


def inference_table(rows: list[Row]) -> Table:
    """Throughput and latency, and throughput and p99 relative to bare Triton's of the same model and concurrency."""
    table = Table(
        "model", "wire", "at a time", "path", "per second", "p50", "p99", "of bare", "p99 of bare", title="Inference"
    )
    bare = {_place(row): row for row in rows if row.path == BARE}
    for row in rows:
        baseline = bare.get(_place(row)) if row.path != BARE else None
        table.add_row(
            row.model,
            row.wire,
            str(row.concurrency),
            row.path,
            f"{row.per_second:,.0f}",
            f"{row.p50_ms:.2f} ms",
            f"{row.p99_ms:.2f} ms",
            f"{row.per_second / baseline.per_second:.2f}" if baseline else "",
            f"{row.p99_ms / baseline.p99_ms:.2f}" if baseline else "",
        )
    return table


def target_table(targets: list[Target]) -> Table:
    """What the mesh is held to, and what it reached in this run."""
    table = Table("target", "goal", "reached", "", title="Targets")
    for target in targets:
        goal = f"{'at least' if target.at_least else 'at most'} {target.goal:g}"
        table.add_row(target.name, goal, f"{target.value:.2f}", "met" if target.met else "missed")
    return table


def show_large(large: Large, console: Console) -> None:
    """The large tensor."""
    table = Table("way", "median", title=f"{large.mib} MiB there and back")
    table.add_row("plain memcpy", f"{large.memcpy_ms:.1f} ms")
    table.add_row("the model's own time", f"{large.model_ms:.1f} ms")
    table.add_row("shared memory through the mesh", f"{large.shared_ms:.1f} ms")
    if large.bare_grpc_ms is not None:
        table.add_row("gRPC to bare Triton", f"{large.bare_grpc_ms:.1f} ms")
    table.add_row("gRPC through the mesh", f"{large.mesh_grpc_ms:.1f} ms")
    console.print(table)


def targets_of(rows: list[Row], large: Large | None) -> list[Target]:
    """What these figures say of the goals; a goal without its figures is left out."""
    found = {(row.path, *_place(row)): row for row in rows}
    targets = []
    for row in rows:
        bare = found.get((BARE, *_place(row)))
        if row.path == MESH_TRITON and bare is not None:
            where = f"{row.model}, {row.wire}, {row.concurrency} at a time"
            name = f"mesh over Triton to bare Triton, {where}"
            throughput, tail = row.per_second / bare.per_second, row.p99_ms / bare.p99_ms
            targets.append(Target(name=f"{name}: throughput", value=throughput, goal=0.90, at_least=True))
            targets.append(Target(name=f"{name}: p99", value=tail, goal=1.15, at_least=False))
        plain = found.get((PLAIN_RAY, *_place(row)))
        if row.path == MESH_RAY and row.model == "mlp" and plain is not None:
            name = f"mesh over Ray to plain Ray Serve, {row.model}, HTTP, {row.concurrency} at a time"
            value = row.per_second / plain.per_second
            targets.append(Target(name=name, value=value, goal=15, at_least=True))
    return [*targets, *_against_best(rows), *(_targets_of_large(large) if large else [])]


def _against_best(rows: list[Row]) -> list[Target]:
    """2,500 requests/s on a Ray replica where bare Triton reaches 9,000: the best of each, as a share."""
    best = {
        path: max((row.per_second for row in rows if row.model == "mlp" and row.path == path), default=0.0)
        for path in (BARE, MESH_RAY)
    }
    if not all(best.values()):
        return []
    name = "mesh over Ray to bare Triton, mlp, best of all"
    return [Target(name=name, value=best[MESH_RAY] / best[BARE], goal=round(2500 / 9000, 3), at_least=True)]


def _targets_of_large(large: Large) -> list[Target]:
    shared = large.shared_ms / (large.memcpy_ms + large.model_ms)
    name = f"{large.mib} MiB by shared memory to memcpy and the model's own time"
    targets = [Target(name=name, value=shared, goal=1.3, at_least=False)]
    if large.bare_grpc_ms is not None:
        name = f"{large.mib} MiB by gRPC, mesh to bare Triton: throughput"
        value = large.bare_grpc_ms / large.mesh_grpc_ms
        targets.append(Target(name=name, value=value, goal=0.85, at_least=True))
    return targets


def _place(row: Row) -> tuple[str, str, int]:
    return row.model, row.wire, row.concurrency


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
