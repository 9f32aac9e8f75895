"""`python -m loadtests.bench`: runs all measurements, prints them and writes them to bench/results/.

The one invariant: the run is bounded (under four minutes, and the podcast), and what could not be measured is said.
"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from loadtests.__main__ import bounded, unreachable
from loadtests.bench import inference, mesh
from loadtests.bench.baselines import bare_triton, plain_ray
from loadtests.bench.h2load import NotInstalled, program
from loadtests.bench.inference import Addresses
from loadtests.bench.jobs import measure_jobs
from loadtests.bench.jobs_http import WATCHERS, measure_over_http
from loadtests.bench.large import measure_large
from loadtests.bench.models import write_repository
from loadtests.bench.podcast import EXAMPLE, PodcastFailed, make_podcast
from loadtests.bench.results import Results, Target, show, targets_of, this_machine
from loadtests.bench.wire import WrongAnswer

ROOT: Final = Path(__file__).resolve().parent.parent.parent
UNREACHABLE: Final = 4
QUICK_S: Final = 1.0

Found = dict[str, Any]

stderr = Console(stderr=True, highlight=False)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write; the exit code."""
    options = parser().parse_args(arguments)
    host = options.host.rstrip("/") if options.host else None
    if host and (problem := unreachable(host)):
        stderr.print(f"bench: --host: {problem}")
        return UNREACHABLE
    results = Results(started_at=datetime.now(UTC).isoformat(timespec="seconds"), machine=this_machine())
    if results.machine.load > 0.5 * results.machine.cores:
        stderr.print(f"The machine is busy (load {results.machine.load}); figures will be worse than they need be.")
    try:
        program()
        found = running_mesh(host, options) if host else own_meshes(options)
    except (mesh.NotStarted, PodcastFailed, NotInstalled, WrongAnswer) as error:
        stderr.print(f"bench: {error}", markup=False)
        return 1
    results = results.model_copy(update=found)
    show(results, Console(width=None if sys.stdout.isatty() else 150, highlight=False))
    stderr.print(f"written to {write(results, options.out)}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m loadtests.bench", description="Measure the mesh on this machine.")
    made.add_argument("--host", help="measure the studio's models on this running mesh (http://host:port)")
    made.add_argument("--grpc", help="host:port of the running mesh's gRPC")
    made.add_argument(
        "--seconds", type=bounded(float, 0.2, 30), default=2.0, help="per way, concurrency and round (default: 2)"
    )
    made.add_argument("--quick", action="store_true", help="one short round: shows that everything works, no figures")
    made.add_argument("--no-inference", dest="inference", action="store_false", help="leave the servers' race out")
    made.add_argument("--no-podcast", dest="podcast", action="store_false", help="leave the studio's mesh out")
    made.add_argument("--no-jobs", dest="jobs", action="store_false", help="leave the job core out")
    made.add_argument("--postgres", help="postgresql://... of an empty database for the job core")
    made.add_argument("--out", type=Path, default=ROOT / "bench" / "results", help="folder for the JSON")
    return made


def own_meshes(options: argparse.Namespace) -> Found:
    """The race of the servers on the benchmark's models, then the studio's mesh."""
    found: Found = {}
    with tempfile.TemporaryDirectory(prefix="reelmesh-bench-") as folder:
        if options.inference:
            (Path(folder) / "race").mkdir()
            found |= race(Path(folder) / "race", options)
        if options.podcast:
            (Path(folder) / "studio").mkdir()
            found["targets"] = [*found.get("targets", []), *studio(Path(folder) / "studio", options, found)]
        if options.jobs:
            stderr.print("taking jobs in ...")
            skipped = found.setdefault("skipped", [])
            seconds = QUICK_S if options.quick else options.seconds
            found["targets"] = [*found.get("targets", []), *measure_jobs(seconds, options.postgres, skipped)]
    return found | {"help_s": round(mesh.help_seconds(), 3)}


def race(folder: Path, options: argparse.Namespace) -> Found:
    """Every server with the same models, at the same time, measured in turns."""
    repository = folder / "repository"
    models = write_repository(repository)
    names = [model.name for model in models]
    found: Found = {"skipped": []}
    with contextlib.ExitStack() as stack:
        stderr.print("starting reelmesh serve, tritonserver and Ray Serve ...")
        started = stack.enter_context(mesh.running(folder, "serve", "--model-repository", str(repository)))
        triton = None
        if started.triton is not None:
            triton = stack.enter_context(bare_triton(started.triton, [*names, "identity"], folder))
        else:
            found["skipped"].append("bare Triton: the mesh runs none")
        plain = stack.enter_context(plain_ray(repository, names, folder))
        ways = inference.ways_of_models(models, started.addresses, triton, plain, found["skipped"])
        found["rows"] = measured(ways, options, found["skipped"])
        try:
            stderr.print("sending a large tensor ...")
            found["large"] = measure_large(started.addresses, triton, rounds=2 if options.quick else 7)
        except (WrongAnswer, OSError) as error:
            found["skipped"].append(f"64 MiB: {error}")
    found["targets"] = targets_of(found["rows"], found.get("large"))
    return found


def studio(folder: Path, options: argparse.Namespace, found: Found) -> list[Target]:
    """The studio's own mesh: how long it takes to start, to make the example podcast, and to tell of its job."""
    stderr.print("starting reelmesh up ...")
    with mesh.running(folder) as started:
        found["up_s"] = round(started.ready_s, 2)
        if not (ROOT / EXAMPLE).exists():
            return []
        host = str(started.addresses.http)
        stderr.print("making the example podcast ...")
        found["podcast"], job_id = make_podcast(host, ROOT)
        if not options.jobs:
            return []
        stderr.print(f"reading its job, and watching a fork of it {WATCHERS} times ...")
        return measure_over_http(host, job_id, QUICK_S if options.quick else options.seconds)


def running_mesh(host: str, options: argparse.Namespace) -> Found:
    """A mesh that somebody else started: the studio's models and its podcast."""
    found: Found = {"skipped": ["bare servers: only with a mesh that the benchmark starts itself"]}
    if options.podcast and (ROOT / EXAMPLE).exists():
        stderr.print("making the example podcast ...")
        found["podcast"], _ = make_podcast(host, ROOT)
    if options.inference:
        ways = inference.ways_of_studio(Addresses(host, options.grpc))
        found["rows"] = measured(ways, options, found["skipped"])
    return found


def measured(ways: list[inference.Way], options: argparse.Namespace, skipped: list[str]) -> list[Any]:
    """All ways, telling on the terminal what goes on; those that fail are put into ``skipped``."""
    with stderr.status("measuring") as status:
        told: Callable[[str], None] = status.update
        if options.quick:
            return inference.measure_all(ways, QUICK_S, told, concurrencies=(4,), rounds=1, skipped=skipped)
        return inference.measure_all(ways, options.seconds, told, skipped=skipped)


def write(results: Results, folder: Path) -> Path:
    """One file per run, and ``latest.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    text = results.model_dump_json(indent=2) + "\n"
    file = folder / f"{results.started_at.replace(':', '').replace('+0000', 'Z')}.json"
    for target_file in (file, folder / "latest.json"):
        target_file.write_text(text, encoding="utf-8")
    return file


if __name__ == "__main__":
    sys.exit(main())
