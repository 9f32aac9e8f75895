"""`python -m loadtests.bench`: runs all measurements, prints them and writes them to bench/results/.

The one invariant: the run is bounded (about two minutes and the podcast), and what could not be measured is
said.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console

from loadtests.__main__ import bounded, unreachable
from loadtests.bench import inference, mesh
from loadtests.bench.inference import Addresses
from loadtests.bench.podcast import EXAMPLE, PodcastFailed, make_podcast
from loadtests.bench.results import Results, show, this_machine

ROOT: Final = Path(__file__).resolve().parent.parent.parent
UNREACHABLE: Final = 4

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
        with target(host, options.grpc) as found:
            results = measure(results, found, seconds=options.seconds, podcast=options.podcast)
    except (mesh.NotStarted, PodcastFailed) as error:
        stderr.print(f"bench: {error}", markup=False)
        return 1
    show(results, Console(width=None if sys.stdout.isatty() else 130, highlight=False))
    stderr.print(f"written to {write(results, options.out)}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m loadtests.bench", description="Measure the mesh on this machine.")
    made.add_argument("--host", help="measure this running mesh (http://host:port) instead of starting one")
    made.add_argument("--grpc", help="host:port of the running mesh's gRPC")
    made.add_argument(
        "--seconds", type=bounded(float, 0.2, 60), default=2.0, help="per path and concurrency (default: 2)"
    )
    made.add_argument("--no-podcast", dest="podcast", action="store_false", help="leave the podcast out")
    made.add_argument("--out", type=Path, default=ROOT / "bench" / "results", help="folder for the JSON")
    return made


@contextlib.contextmanager
def target(host: str | None, grpc: str | None) -> Iterator[mesh.Started]:
    """The running mesh, or one started for this."""
    if host:
        yield mesh.Started(Addresses(host, grpc), None, 0.0)
        return
    with tempfile.TemporaryDirectory(prefix="reelmesh-bench-") as folder:
        stderr.print("starting a mesh ...")
        with mesh.running(Path(folder)) as started:
            yield started


def measure(results: Results, found: mesh.Started, *, seconds: float, podcast: bool) -> Results:
    """Everything that can be measured of a mesh that is ready."""
    http = found.addresses.http
    assert http is not None  # noqa: S101  a mesh always has one
    skipped = [] if found.triton else ["bare Triton: only of a mesh that the benchmark starts itself"]
    update: dict[str, object] = {"up_s": round(found.ready_s, 2) or None}
    if podcast and (ROOT / EXAMPLE).exists():
        stderr.print("making the example podcast ...")
        update["podcast"] = make_podcast(http, ROOT)
    paths = inference.paths_of(found.addresses, found.triton, ROOT / "model_repository")
    with stderr.status("measuring") as status:
        update["rows"] = asyncio.run(inference.measure_all(paths, seconds, status.update))
    update["help_s"] = round(mesh.help_seconds(), 3)
    return results.model_copy(update={**update, "skipped": skipped})


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
