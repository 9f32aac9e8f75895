"""`reelmesh demo`: start the mesh, make the example podcast through the public API, check the file, stop.

The one invariant: exit 0 means that the downloaded file itself passed every check, not only that the job said so.
"""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from serving.cli.client import JobsClient
from serving.cli.follow import Interrupted, display, files_of, follow, outcome, until_interrupted
from serving.cli.jobs import upload_files
from serving.cli.mesh import Mesh, running_mesh
from serving.cli.output import ExitCode, print_json, print_line, stderr, stdout
from serving.cli.spec import Spec, named_files, read_spec, with_refs
from serving.cli.up import progress_report, settings_from
from serving.errors import ReelmeshError
from serving.gateway.views import JobView
from serving.jobs.types import JobState
from serving.media.verify import Report, verify_programme
from serving.settings import EdgeSettings, Settings

JOB_TYPE: Final = "podcast_video"
CAPTIONS: Final = (".srt", ".vtt", ".ass")

SpecFile = Annotated[Path, typer.Option("--spec", help="The podcast to make.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for the result files.", file_okay=False)]
Home = Annotated[Path | None, typer.Option(help="Folder for jobs, artifacts and logs. [default: .reelmesh]")]


def demo(
    spec: SpecFile = Path("examples/podcast/podcast.yaml"),
    out: Out = Path("build/demo"),
    home: Home = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Start the mesh, make a podcast video, check it, stop."""
    wanted = read_spec(spec)
    began = time.monotonic()
    with progress_report() as report, running_mesh(_settings(home), report) as mesh:
        report("ready", 1.0)
        stderr().print(f"[green]✓[/] mesh ready      {mesh.ready_s:7.1f} s")
        try:
            job, paths = asyncio.run(until_interrupted(_make(mesh, wanted, out, silent=as_json)))
        except Interrupted:
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        seconds = time.monotonic() - began
    if job.state is not JobState.COMPLETED:
        print_line(f"job {job.id} {outcome(job)}")
        raise typer.Exit(ExitCode.FAILED)
    checks = asyncio.run(_checked(paths))
    facts = _facts(mesh, job, paths, checks, seconds)
    print_json(facts) if as_json else _print(job, paths, checks, facts)
    if not checks.ok:
        raise typer.Exit(ExitCode.FAILED)


def _settings(home: Path | None) -> Settings:
    """Free ports of the loopback, so that the demo runs beside a mesh; and no keys, since nobody else reaches it."""
    base = settings_from(home=home)
    alone = EdgeSettings(http_port=0, grpc_port=0, metrics_port=0, keys_file=None)
    return base.model_copy(update={"edge": alone})


async def _make(mesh: Mesh, wanted: Spec, out: Path, *, silent: bool) -> tuple[JobView, dict[str, Path]]:
    """Submit the podcast as any client would, follow it, fetch its files."""
    async with JobsClient(mesh.url) as client:
        schema = (await client.job_types())[JOB_TYPE].input_schema
        with display(silent=silent) as shown:
            refs = await upload_files(client, wanted, named_files(schema, wanted), shown)
            try:
                job = await client.submit(JOB_TYPE, with_refs(wanted.value, refs))
            except ReelmeshError as error:
                raise wanted.located(error) from error
            try:
                ended = await follow(client, job.id, shown)
            except asyncio.CancelledError:
                # Left alone, the job would go on in the next mesh of this home.
                with contextlib.suppress(ReelmeshError):
                    await client.cancel(job.id)
                raise
            return ended, {name: path async for name, path in files_of(client, ended, out, shown)}


async def _checked(paths: dict[str, Path]) -> Report:
    """Check the files as they lie on the disk, whatever the job says of them."""
    film = next(path for name, path in paths.items() if name.endswith(".mp4"))
    captions = {
        path.suffix.removeprefix("."): path.read_text(encoding="utf-8")
        for path in paths.values()
        if path.suffix in CAPTIONS
    }
    return await verify_programme(film, captions=captions)


def _facts(mesh: Mesh, job: JobView, paths: dict[str, Path], checks: Report, seconds: float) -> dict[str, Any]:
    made_s = (job.finished_at or 0) - (job.started_at or 0)
    media_s = float(str(job.output.facts["duration_s"])) if job.output else 0.0
    return {
        "job": job.id,
        "page": job.page,
        "files": {name: str(path) for name, path in paths.items()},
        "media_s": media_s,
        "ready_s": round(mesh.ready_s, 2),
        "job_s": round(made_s, 2),
        "total_s": round(seconds, 2),
        "real_time_factor": round(made_s / media_s, 3),
        "stages": {stage.name: round(stage.duration_s(time.time()), 2) for stage in job.stages if stage.started_at},
        "checks": checks.as_facts(),
    }


def _print(job: JobView, paths: dict[str, Path], checks: Report, facts: dict[str, Any]) -> None:
    out = stdout()
    table = Table("CHECK", "MEASURED", "WANTED", box=None, pad_edge=False, title_justify="left")
    for check in checks.checks:
        table.add_row(f"{'✓' if check.ok else '✗'} {check.name}", check.measured, check.wanted)
    out.print(table)
    out.print()
    for path in paths.values():
        out.print(f"  {path}", soft_wrap=True)
    out.print()
    out.print(
        f"{facts['media_s']:.1f} s of video in {facts['job_s']:.1f} s"
        f" (real-time factor {facts['real_time_factor']:.2f}); {facts['total_s']:.1f} s with starting the mesh."
    )
    out.print(f"To watch it on its page: `make up`, then open http://127.0.0.1:8000{job.page}", soft_wrap=True)
