"""`make bench-engines`: what the engines cost over the libraries they run, what batches gain, how fast weights load.

Every figure stands beside its baseline, run in turns with it in the same minutes on tiny and medium random-weight
models on the CPU. The one invariant: the baseline calls the very network the engine loaded, and makes the same file.
"""

import asyncio
import json
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.cases import CASES, Case, Loaded, loaded
from bench.loading import LOADS, Load
from serving.artifacts.store import ArtifactStore
from serving.backends.base import EngineContext
from serving.backends.call import Call
from serving.backends.ray.tiny.build import tiny_model_folder
from serving.repository.load import load_repository
from serving.repository.model import Model
from serving.settings import Settings
from serving.weights.cache import WeightsCache

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "bench" / "engines.json"
"""Kept in git: docs/models.md is made of it, wherever that is done."""
ROUNDS: Final = 9
MOST_ROUNDS: Final = 41
BUDGET_MS: Final = 6000
"""What quick works may take together."""
BATCH: Final = 8
MOST_OVERHEAD: Final = 0.03
MOST_OVERHEAD_MS: Final = 2.0
LEAST_GAIN: Final = 2.0
LEAST_LOAD: Final = 0.8


class Overhead(BaseModel):
    """Medians of one request through the engine and by the library, in milliseconds."""

    model: str
    library_ms: float
    engine_ms: float

    @property
    def over_ms(self) -> float:
        """What the engine adds."""
        return self.engine_ms - self.library_ms

    @property
    def met(self) -> bool:
        """Whether that is within the bound."""
        return self.over_ms <= max(MOST_OVERHEAD_MS, MOST_OVERHEAD * self.library_ms)


class Batch(BaseModel):
    """Medians of eight requests one after another and at once, in milliseconds."""

    model: str
    apart_ms: float
    together_ms: float
    largest: int

    @property
    def gain(self) -> float:
        """How many times faster."""
        return self.apart_ms / self.together_ms


class Loading(BaseModel):
    """Medians of reading a checkpoint's files and of loading it, both from a warm page cache, in milliseconds."""

    model: str
    mib: float
    read_ms: float
    load_ms: float

    @property
    def ratio(self) -> float:
        """The speed of loading as a part of that of reading."""
        return self.read_ms / self.load_ms


class ColdStarts(BaseModel):
    """What a tiny model took until it could answer, in a fresh process of this run but for the libraries' import."""

    model: str
    load_s: float
    warm_up_s: float | None


class Report(BaseModel):
    """One run."""

    machine: str
    libraries: dict[str, str]
    overheads: list[Overhead] = []
    batches: list[Batch] = []
    loads: list[Loading] = []
    cold_starts: list[ColdStarts] = []


async def timed_ms(work: Callable[[], Awaitable[object]]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    await work()
    return 1000 * (time.perf_counter() - began)


async def in_turns(*works: Callable[[], Awaitable[object]], least: int = ROUNDS) -> list[float]:
    """Medians in milliseconds; the works take turns, so that a slow minute strikes all of them.

    Args:
        works: what is timed; the first round does not count.
        least: rounds; quick works get up to :data:`MOST_ROUNDS` of them.
    """
    first = sum([await timed_ms(work) for work in works])
    rounds = min(MOST_ROUNDS, max(least, int(BUDGET_MS / first)))
    times: list[list[float]] = [[] for _ in works]
    for number in range(rounds):
        order = list(enumerate(works))
        for index, work in order if number % 2 else reversed(order):
            times[index].append(await timed_ms(work))
    return [statistics.median(each) for each in times]


async def overhead_of(case: Case, engine: Loaded, context: EngineContext) -> Overhead:
    """One request at a time; the library runs in the engine's own thread, as it would in a script's only one."""
    request = await case.request(context.artifacts, 0)
    files = await engine.files(request)
    direct = case.direct(engine, request, files)

    async def library() -> None:
        with tempfile.TemporaryDirectory(dir=context.scratch) as folder:
            await engine.runner.call(lambda: direct(Path(folder)))

    library_ms, engine_ms = await in_turns(library, lambda: engine.run(request, Call()))
    return Overhead(model=case.model, library_ms=library_ms, engine_ms=engine_ms)


async def batch_of(case: Case, engine: Loaded, context: EngineContext) -> Batch:
    """Eight requests that differ in their seed or text."""
    requests = [await case.request(context.artifacts, seed) for seed in range(BATCH)]
    sizes: list[int] = []

    async def apart() -> None:
        for request in requests:
            await engine.run(request, Call())

    async def together() -> None:
        results = await asyncio.gather(*(engine.run(request, Call()) for request in requests))
        sizes.extend(result.made.batch for result in results if result.made is not None)

    apart_ms, together_ms = await in_turns(apart, together, least=5)
    return Batch(model=case.model, apart_ms=apart_ms, together_ms=together_ms, largest=max(sizes))


async def measure(case: Case, model: Model, context: EngineContext, report: Report) -> None:
    """Everything about one tiny model."""
    engine = await asyncio.to_thread(loaded, model, context)
    try:
        await engine.warm_up()
        took = engine.cold_start
        report.cold_starts.append(ColdStarts(model=case.model, load_s=took.load_s, warm_up_s=took.warm_up_s))
        report.overheads.append(await overhead_of(case, engine, context))
        if engine.most_in_batch() > 1:
            report.batches.append(await batch_of(case, engine, context))
    finally:
        await engine.close()


def tables(report: Report, console: Console) -> None:
    """Print the run."""
    table = Table("model", "library ms", "engine ms", "over ms", "over", "", title="Overhead of the engine", box=None)
    for over in report.overheads:
        share = over.over_ms / over.library_ms
        row = (f"{over.library_ms:.1f}", f"{over.engine_ms:.1f}", f"{over.over_ms:+.2f}", f"{share:+.1%}")
        table.add_row(over.model, *row, _mark(met=over.met))
    console.print(table)
    table = Table("model", "8 apart ms", "at once ms", "gain", "batch", "", title="\nEight requests", box=None)
    for batch in report.batches:
        row = (f"{batch.apart_ms:.1f}", f"{batch.together_ms:.1f}", f"{batch.gain:.2f}x", str(batch.largest))
        table.add_row(batch.model, *row, _mark(met=batch.gain >= LEAST_GAIN))
    console.print(table)
    table = Table("model", "MiB", "read ms", "load ms", "speed", "", title="\nLoading medium checkpoints", box=None)
    for load in report.loads:
        row = (f"{load.mib:.0f}", f"{load.read_ms:.0f}", f"{load.load_ms:.0f}", f"{load.ratio:.2f}")
        table.add_row(load.model, *row, _mark(met=load.ratio >= LEAST_LOAD))
    console.print(table)


def _mark(*, met: bool) -> str:
    return "[green]met[/]" if met else "[red]missed[/]"


def libraries() -> dict[str, str]:
    """Versions of what was measured."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("torch", "diffusers", "transformers", "ctranslate2", "faster-whisper", "coqui-tts", "safetensors"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


async def run(names: Sequence[str], home: Path) -> Report:
    """Measure the cases of these models, or all."""
    settings = Settings(home=home).resolved()
    repository = load_repository([ROOT / "model_repository"])
    report = Report(machine=f"{platform.machine()}, {platform.processor() or 'CPU'}", libraries=libraries())
    scratch = home / "scratch"
    scratch.mkdir()
    context = EngineContext(
        artifacts=ArtifactStore.of(settings), scratch=scratch, weights=WeightsCache.of(settings), threads=2
    )
    cases = [case for case in CASES if not names or case.model in names]
    loads: list[Load] = [load for load in LOADS if not names or load.model in names]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Measuring", total=len(cases) + len(loads))
        for case in cases:
            progress.update(task, description=case.model)
            tiny_model_folder(repository.get(case.model), home / "models")
            await measure(case, load_repository([home / "models"]).get(case.model), context, report)
            progress.advance(task)
        for load in loads:
            progress.update(task, description=f"loading {load.model}")
            tiny_model_folder(repository.get(load.model), home / "models")
            told = await asyncio.to_thread(load.measure, home / "models", home / "medium", context)
            mib, read_ms, load_ms = told
            report.loads.append(Loading(model=load.model, mib=mib, read_ms=read_ms, load_ms=load_ms))
            progress.advance(task)
    return report


def main(names: Sequence[str]) -> int:
    """Measure, print, and keep the run of all models."""
    home = Path(tempfile.mkdtemp(prefix="reelmesh-bench-"))
    try:
        report = asyncio.run(run(names, home))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    tables(report, Console())
    if not names:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(report.model_dump(), indent=2) + "\n", encoding="utf-8")
        print(f"written: {RESULTS.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
