"""`reelmesh submit` and `reelmesh jobs`: hand jobs to a running mesh and see to them; run by the root command line.

The one invariant: stdout carries results (paths, tables, JSON), stderr everything else, and the exit code tells how the
job ended: 0 completed, 1 failed or cancelled, 2 bad input, 4 no mesh, 130 interrupted.
"""

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
from rich.table import Table

from serving.cli.client import JobsClient
from serving.cli.follow import (
    Display,
    Interrupted,
    ask_to_cancel,
    display,
    files_of,
    follow,
    outcome,
    until_interrupted,
    words,
)
from serving.cli.output import ExitCode, print_json, print_line, stdout
from serving.cli.spec import NamedFile, Spec, named_files, read_spec, unknown_type, with_refs
from serving.errors import BadInput, ReelmeshError
from serving.gateway.page_text import age_text, duration_text, percent_text
from serving.gateway.views import JobView
from serving.jobs.types import JobState, Lane
from serving.protocol.artifact import ArtifactRef
from serving.repository.yaml_lines import Location
from serving.settings import Settings

T = TypeVar("T")

_TYPES: Final = (
    "A job type: podcast_video (two voices and two portraits), video_generation (a script as a film of pictures), "
    "subtitle_generation (captions for a recording), or another that the mesh lists at /v1/job-types."
)

RESULTS: Final = Path("reelmesh-results")

app = typer.Typer(no_args_is_help=True, add_completion=False, help="List, show, watch and cancel jobs.")

Host = Annotated[
    str, typer.Option("--host", envvar="REELMESH_URL", help="Address of the mesh; empty takes the local one.")
]
MeshKey = Annotated[
    str,
    typer.Option(
        "--mesh-key", envvar="REELMESH_KEY", help="Key of the mesh, where it asks for one; see `reelmesh keys`."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the result files.", file_okay=False)]


def mesh_url(host: str) -> str:
    """The address a client uses: what was named, or this machine's mesh by its settings."""
    if host:
        return host if "://" in host else f"http://{host}"
    edge = Settings().edge
    return f"http://{edge.host}:{edge.http_port}"


def _run(work: Coroutine[Any, Any, ExitCode]) -> None:
    raise typer.Exit(asyncio.run(work))


def submit(
    type_name: Annotated[str, typer.Argument(metavar="TYPE", help=_TYPES)],
    spec: Annotated[Path, typer.Argument(help="YAML file with the job's input; files it names are uploaded.")],
    *,
    host: Host = "",
    mesh_key: MeshKey = "",
    lane: Annotated[Lane | None, typer.Option(help="Priority class.")] = None,
    timeout_s: Annotated[float | None, typer.Option("--timeout", min=0.1, help="Seconds the job may run.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: sending it again gives the same job.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Stay until the job has ended.")] = True,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Submit a job, watch it, download its files."""

    async def work() -> ExitCode:
        wanted = read_spec(spec)
        async with JobsClient(mesh_url(host), key=mesh_key) as client:
            types = await client.job_types()
            if type_name not in types:
                raise unknown_type(type_name, types)
            files = named_files(types[type_name].input_schema, wanted)
            with display(silent=as_json) as shown:
                refs = await upload_files(client, wanted, files, shown)
            try:
                job = await client.submit(
                    type_name, with_refs(wanted.value, refs), lane=lane, timeout_s=timeout_s, key=key
                )
            except ReelmeshError as error:
                raise wanted.located(error) from error
            if not wait:
                _print_job(job, as_json=as_json)
                return ExitCode.OK
            if not as_json:
                print_note(f"job {job.id}: {client.base_url}{job.page}")
            return await _see_through(client, job, out, as_json=as_json)

    _run(work())


async def upload_files(
    client: JobsClient, spec: Spec, files: list[NamedFile], shown: Display
) -> dict[Location, ArtifactRef]:
    """Send the files a spec names; errors name the line. Used by the demo too."""
    refs: dict[Location, ArtifactRef] = {}
    for file in files:
        moved = shown.bar(f"sending {file.path.name}", file.path.stat().st_size)
        try:
            refs[file.location] = await client.upload(file.path, moved=moved)
        except BadInput as error:
            raise type(error)(error.problem, field=spec.place(file.location), fix=error.fix) from error
    return refs


async def _see_through(client: JobsClient, job: JobView, out: Path | None, *, as_json: bool) -> ExitCode:
    """Follow a job to its end, fetch its files and say what became of it."""
    try:
        with display(silent=as_json) as shown:
            ended = await until_interrupted(follow(client, job.id, shown))
            folder = out or RESULTS / job.id
            paths = {name: path async for name, path in files_of(client, ended, folder, shown)}
    except Interrupted:
        left = await ask_to_cancel(client, job)
        if left is not None:
            print_line(f"job {job.id} {outcome(left)}")
        return ExitCode.INTERRUPTED
    if as_json:
        print_json({**ended.model_dump(mode="json"), "paths": {name: str(path) for name, path in paths.items()}})
    else:
        for path in paths.values():
            print(path)
    if ended.state is JobState.COMPLETED:
        if not as_json:
            print_note(outcome(ended))
        return ExitCode.OK
    print_line(f"job {job.id} {outcome(ended)}")
    return ExitCode.FAILED


def print_note(text: str) -> None:
    """A remark on stderr."""
    typer.echo(text, err=True)


def _print_job(job: JobView, *, as_json: bool) -> None:
    if as_json:
        print_json(job.model_dump(mode="json"))
    else:
        print(job.id)


@app.command("list")
def list_jobs(
    host: Host = "",
    mesh_key: MeshKey = "",
    state: Annotated[list[JobState] | None, typer.Option(help="Only jobs in this state; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most jobs shown.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show the newest jobs."""

    async def work() -> ExitCode:
        async with JobsClient(mesh_url(host), key=mesh_key) as client:
            page = await client.jobs(states=state or (), limit=limit)
        if as_json:
            print_json(page.model_dump(mode="json"))
            return ExitCode.OK
        table = Table("JOB", "TYPE", "TITLE", "STATE", "PROGRESS", "STAGE", "AGE", box=None, pad_edge=False)
        now = time.time()
        for job in page.data:
            title, stage = job.title or "", "" if job.is_final else words(job.stage or "")
            age = age_text(job.created_at, now)
            table.add_row(job.id, job.type, title, words(job.state), percent_text(job.progress), stage, age)
        stdout().print(table, markup=False) if page.data else print_note("no jobs")
        return ExitCode.OK

    _run(work())


@app.command()
def show(job_id: JobId, host: Host = "", mesh_key: MeshKey = "", as_json: AsJson = False) -> None:
    """Show one job: its stages, files and error."""

    async def work() -> ExitCode:
        async with JobsClient(mesh_url(host), key=mesh_key) as client:
            job = await client.job(job_id)
        if as_json:
            print_json(job.model_dump(mode="json"))
            return ExitCode.OK
        console, now = stdout(), time.time()
        console.print(f"{job.title or job.type}  ({job.type}, {job.lane} lane)", markup=False)
        console.print(
            f"{words(job.state)}, {percent_text(job.progress)}, {age_text(job.created_at, now)}", markup=False
        )
        if job.error is not None:
            console.print(f"error: {job.error}", markup=False)
        table = Table("STAGE", "STATE", "TIME", "PARTS", "MODELS", box=None, pad_edge=False)
        for stage in job.stages:
            seconds = duration_text(stage.duration_s(now)) if stage.started_at is not None else ""
            parts = f"{stage.parts_done}/{stage.parts}" if stage.parts else ""
            table.add_row(words(stage.name), stage.state, seconds, parts, ", ".join(stage.models))
        console.print(table, markup=False)
        for name, file in job.files.items():
            console.print(f"{name}: {client.base_url}{file.url}", markup=False, soft_wrap=True)
        return ExitCode.OK

    _run(work())


@app.command()
def watch(job_id: JobId, host: Host = "", mesh_key: MeshKey = "", out: Out = None, as_json: AsJson = False) -> None:
    """Follow a job to its end and download its files."""

    async def work() -> ExitCode:
        async with JobsClient(mesh_url(host), key=mesh_key) as client:
            return await _see_through(client, await client.job(job_id), out, as_json=as_json)

    _run(work())


@app.command()
def cancel(job_id: JobId, host: Host = "", mesh_key: MeshKey = "", as_json: AsJson = False) -> None:
    """Cancel a job; work in progress stops within two seconds."""

    async def work() -> ExitCode:
        async with JobsClient(mesh_url(host), key=mesh_key) as client:
            job = await client.cancel(job_id)
        if as_json:
            print_json(job.model_dump(mode="json"))
        else:
            print_note(f"job {job.id} is {'stopping' if not job.is_final else words(job.state)}")
        return ExitCode.OK

    _run(work())
