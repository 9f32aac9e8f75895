"""`reelmesh jobs retry`, `edit` and `dead`: new jobs that go on where old ones ended; part of `reelmesh jobs`.

The one invariant: nothing here changes a job: each command makes a new one, which takes what the old one finished.
"""

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer
from pydantic import JsonValue
from rich.table import Table

from serving.cli.client import JobsClient
from serving.cli.edits import Edits, edits_of_file, edits_of_sets, patch_by_editor, stages_of_sets
from serving.cli.job_options import AsJson, Host, JobId, MeshKey, Out, StopAt, Wait, mesh_url, run_command
from serving.cli.output import ExitCode, print_json, print_note, stdout
from serving.cli.see_through import after_submit
from serving.errors import BadInput
from serving.gateway.page_text import age_text
from serving.gateway.views import JobView

_SETS = "Change a place: input.FIELD=VALUE, or results.STAGE.PART.FIELD=VALUE; may be repeated. Values are YAML."

dead_app = typer.Typer(add_completion=False, invoke_without_command=True, help="List dead letters, and re-drive them.")


def retry(
    job_id: JobId,
    *,
    host: Host = "",
    mesh_key: MeshKey = "",
    from_stage: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="First stage to run again; else the first unfinished.")
    ] = None,
    stop_at: StopAt = None,
    wait: Wait = True,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Run an ended job again from a stage: a new job that takes the results of the stages before."""

    async def work() -> ExitCode:
        async with JobsClient(mesh_url(host), key=mesh_key) as client:
            job = await client.retry(job_id, from_stage=from_stage, stop_at=stop_at)
            return await after_submit(client, job, out, wait=wait, as_json=as_json)

    run_command(work())


def edit(
    job_id: JobId,
    *,
    host: Host = "",
    mesh_key: MeshKey = "",
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help=_SETS)] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="YAML with `input` and `results`, each a JSON merge patch.")
    ] = None,
    stage: Annotated[str | None, typer.Option(metavar="STAGE", help="Open what this stage made in the editor.")] = None,
    stop_at: StopAt = None,
    wait: Wait = True,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Change inputs or results of an ended job and go on: a new job that runs again only what the change concerns.

    Without --set, --file and --stage, the job's input opens in $VISUAL or $EDITOR.
    """

    async def work() -> ExitCode:
        async with JobsClient(mesh_url(host), key=mesh_key) as client:
            edits = await _edits(client, await client.job(job_id), sets or [], file, stage)
            if not edits:
                print_note("nothing was changed")
                return ExitCode.OK
            job = await client.retry(job_id, edits=edits, stop_at=stop_at)
            return await after_submit(client, job, out, wait=wait, as_json=as_json)

    run_command(work())


async def _edits(client: JobsClient, job: JobView, sets: list[str], file: Path | None, stage: str | None) -> Edits:
    """What the person wants to be otherwise, in the one way of saying it that they chose."""
    if sum(map(bool, (sets, file, stage))) > 1:
        raise BadInput("--set, --file and --stage exclude each other", field="--set", fix="leave all but one out")
    if file is not None:
        return await asyncio.to_thread(edits_of_file, file)
    if sets:
        results: dict[str, JsonValue] = {name: await client.results(job.id, name) for name in stages_of_sets(sets)}
        return edits_of_sets(sets, {"input": job.input, "results": results})
    if stage is not None:
        held = await client.results(job.id, stage)
        patch = await asyncio.to_thread(patch_by_editor, held, f"results of {stage} of job {job.id}, by part")
        return {"results": {stage: patch}} if patch else {}
    patch = await asyncio.to_thread(patch_by_editor, job.input, f"input of job {job.id}")
    return {"input": patch} if patch else {}


@dead_app.callback()
def dead(
    context: typer.Context,
    *,
    host: Host = "",
    mesh_key: MeshKey = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most jobs shown.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the jobs that used up their tries, newest first; `redrive` makes new ones of them."""
    if context.invoked_subcommand is not None:
        return

    async def work() -> ExitCode:
        async with JobsClient(mesh_url(host), key=mesh_key) as client:
            page = await client.jobs(dead=True, limit=limit)
        if as_json:
            print_json(page.model_dump(mode="json"))
            return ExitCode.OK
        table = Table("JOB", "TYPE", "TITLE", "TRIES", "AGE", "ERROR", box=None, pad_edge=False)
        now = time.time()
        for job in page.data:
            age = age_text(job.dead_at or job.created_at, now)
            table.add_row(job.id, job.type, job.title or "", str(job.tries), age, str(job.error or ""))
        stdout().print(table, markup=False) if page.data else print_note("no dead letters")
        return ExitCode.OK

    run_command(work())


@dead_app.command()
def redrive(
    job_ids: Annotated[list[str] | None, typer.Argument(metavar="[JOB]...", help="Ids of dead letters.")] = None,
    *,
    host: Host = "",
    mesh_key: MeshKey = "",
    everything: Annotated[bool, typer.Option("--all", help="All dead letters that may be seen, 1000 at most.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make new jobs of dead letters, each from its first unfinished stage; prints their ids."""

    async def work() -> ExitCode:
        if bool(job_ids) == everything:
            raise BadInput("name jobs, or say --all", field="JOB", fix="`reelmesh jobs dead` lists them")
        async with JobsClient(mesh_url(host), key=mesh_key) as client:
            wanted = job_ids or [job.id for job in (await client.jobs(dead=True, limit=1000)).data]
            made: list[JobView] = []
            try:
                for each in wanted:
                    made.append(await client.redrive(each))
                    if not as_json:
                        print(made[-1].id, flush=True)
            finally:  # whatever happens to a later one, these are made
                if as_json:
                    print_json([job.model_dump(mode="json") for job in made])
        return ExitCode.OK

    run_command(work())
