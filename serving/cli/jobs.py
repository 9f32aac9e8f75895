"""`reelmesh submit` and `reelmesh jobs`: hand jobs to a running mesh and see to them; run by the root command line.

The one invariant: stdout carries results (paths, tables, JSON), stderr everything else, and the exit code tells how the
job ended: 0 completed, 1 failed or cancelled, 2 bad input, 4 no mesh, 130 interrupted.
"""

import time
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import JsonValue
from rich.table import Table

from serving.cli.client import JobsClient
from serving.cli.follow import Display, display, words
from serving.cli.job_changes import dead_app, edit, retry
from serving.cli.job_options import AsJson, Host, JobId, MeshKey, Out, StopAt, Wait, mesh_url, run_command
from serving.cli.output import ExitCode, print_json, print_note, stdout
from serving.cli.see_through import after_submit, see_through
from serving.cli.spec import NamedFile, Spec, named_files, read_spec, unknown_type, with_refs
from serving.errors import BadInput, ReelmeshError
from serving.gateway.page_text import age_text, clock_text, duration_text, percent_text
from serving.gateway.views import JobView
from serving.jobs.types import JobState, Lane
from serving.protocol.artifact import ArtifactRef
from serving.protocol.licences import COMMERCIAL, USES
from serving.repository.yaml_lines import Location

_TYPES: Final = (
    "A job type: podcast_video (two voices and two portraits), video_generation (a script as a film of pictures), "
    "voice_synthesis (lines as speech), lipsync_animation (a portrait speaks), music_generation, subtitle_generation "
    "(captions for a recording), or another that the mesh lists at /v1/job-types."
)

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Submit, list, show, watch, cancel, retry and edit jobs."
)


def submit(
    type_name: Annotated[str, typer.Argument(metavar="TYPE", help=_TYPES)],
    spec: Annotated[Path, typer.Argument(help="YAML file with the job's input; files it names are uploaded.")],
    *,
    host: Host = "",
    mesh_key: MeshKey = "",
    lane: Annotated[Lane | None, typer.Option(help="Priority class.")] = None,
    timeout_s: Annotated[float | None, typer.Option("--timeout", min=0.1, help="Seconds the job may run.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: sending it again gives the same job.")] = None,
    deadline_s: Annotated[
        float | None, typer.Option("--deadline", min=0.1, help="Seconds from now when the result is needed.")
    ] = None,
    stop_at: StopAt = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Take no results of other jobs, and give none.")] = False,
    use: Annotated[
        str | None, typer.Option(help=f"What it is for, {' or '.join(USES)}; what the mesh key is for without it.")
    ] = None,
    webhook: Annotated[
        str | None, typer.Option(metavar="URL", help="Where the mesh tells of the job's states.")
    ] = None,
    webhook_events: Annotated[
        list[str] | None, typer.Option("--event", help="Tell the webhook of these alone: job.completed ...")
    ] = None,
    wait: Wait = True,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Submit a job, watch it, download its files."""
    options: dict[str, JsonValue] = {
        "lane": lane,
        "timeout_s": timeout_s,
        "deadline_s": deadline_s,
        "stop_at": stop_at,
        "use_cache": False if no_cache else None,
        "use": use,
        "webhook": webhook_of(webhook, webhook_events or []),
    }

    async def work() -> ExitCode:
        wanted = read_spec(spec)
        async with JobsClient(mesh_url(host), key=mesh_key) as client:
            with display(silent=as_json) as shown:
                job = await _send(client, type_name, wanted, shown, key=key, **options)
            return await after_submit(client, job, out, wait=wait, as_json=as_json)

    run_command(work())


async def _send(
    client: JobsClient, type_name: str, wanted: Spec, shown: Display, *, key: str | None, **options: JsonValue
) -> JobView:
    """Upload the files that a spec names, and submit its job; errors name the line."""
    types = await client.job_types()
    if type_name not in types:
        raise unknown_type(type_name, types)
    files = named_files(types[type_name].input_schema, wanted)
    refs = await upload_files(client, wanted, files, shown)
    try:
        return await client.submit(type_name, with_refs(wanted.value, refs), key=key, **options)
    except ReelmeshError as error:
        raise wanted.located(error) from error


def webhook_of(url: str | None, events: list[str]) -> dict[str, JsonValue] | None:
    """The webhook as the mesh takes it."""
    if url is None:
        if events:
            raise BadInput("there is no webhook to tell", field="--event", fix="name it by --webhook URL")
        return None
    return {"url": url, "events": list[JsonValue](events)}


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

    run_command(work())


def _facts(job: JobView) -> list[str]:
    """What is known of a job beside its state, a line each."""
    lines = []
    if job.queue_position is not None:
        wait = job.estimated_wait_s
        lines.append(f"number {job.queue_position} in line" + (f", about {duration_text(wait)}" if wait else ""))
    if job.deadline_at is not None:
        lines.append(f"needed by {clock_text(job.deadline_at)}")
    if job.use != COMMERCIAL:
        lines.append("for work that is not commercial")
    if job.parent_id is not None:
        since = f" from {words(job.from_stage)} on" if job.from_stage else ""
        lines.append(f"goes on with job {job.parent_id}{since}{', edited' if job.edits else ''}")
    if cost := _cost(job.cpu_s, job.gpu_s):
        lines.append(f"cost {cost}")
    if job.error is not None:
        lines.append(f"error: {job.error}")
    if job.dead_at is not None:
        lines.append(f"a dead letter: `reelmesh jobs dead redrive {job.id}` goes on with it")
    return lines


def _cost(cpu_s: float, gpu_s: float) -> str:
    """``12 s CPU, 3 min 05 s GPU``, leaving out what is nothing."""
    parts = (f"{duration_text(spent)} {what}" for spent, what in ((cpu_s, "CPU"), (gpu_s, "GPU")) if spent > 0)
    return ", ".join(parts)


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
        for line in _facts(job):
            console.print(line, markup=False)
        table = Table("STAGE", "STATE", "TIME", "PARTS", "REUSED", "COST", "MODELS", box=None, pad_edge=False)
        for stage in job.stages:
            seconds = duration_text(stage.duration_s(now)) if stage.started_at is not None else ""
            parts = f"{stage.parts_done}/{stage.parts}" if stage.parts else ""
            reused = str(stage.parts_cached or "")
            cost = _cost(stage.cpu_s, stage.gpu_s)
            table.add_row(words(stage.name), stage.state, seconds, parts, reused, cost, ", ".join(stage.models))
        console.print(table, markup=False)
        for name, file in job.artifacts.items():
            console.print(f"{name}: {client.base_url}{file.url}", markup=False, soft_wrap=True)
        return ExitCode.OK

    run_command(work())


@app.command()
def watch(job_id: JobId, host: Host = "", mesh_key: MeshKey = "", out: Out = None, as_json: AsJson = False) -> None:
    """Follow a job to its end and download its files."""

    async def work() -> ExitCode:
        async with JobsClient(mesh_url(host), key=mesh_key) as client:
            return await see_through(client, await client.job(job_id), out, as_json=as_json)

    run_command(work())


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

    run_command(work())


app.command()(submit)
app.command()(retry)
app.command()(edit)
app.add_typer(dead_app, name="dead")
