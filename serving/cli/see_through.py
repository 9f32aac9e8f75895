"""Sees a job through: follows it, fetches its files, says what became of it; used by commands that make or watch jobs.

The one invariant: stdout gets paths or JSON alone, and the exit code tells how the job ended.
"""

from pathlib import Path
from typing import Final

from serving.cli.client import JobsClient
from serving.cli.follow import Interrupted, ask_to_cancel, display, files_of, follow, outcome, until_interrupted
from serving.cli.output import ExitCode, print_json, print_line, print_note
from serving.gateway.views import JobView
from serving.jobs.types import JobState

RESULTS: Final = Path("reelmesh-results")
"""Where files go unless --out says otherwise, in a folder of the job's id."""


async def after_submit(client: JobsClient, job: JobView, out: Path | None, *, wait: bool, as_json: bool) -> ExitCode:
    """What follows once a job was made: its id, or its way to the end."""
    if not wait:
        if as_json:
            print_json(job.model_dump(mode="json"))
        else:
            print(job.id)
        return ExitCode.OK
    if not as_json:
        print_note(f"job {job.id}: {client.base_url}{job.page}")
    return await see_through(client, job, out, as_json=as_json)


async def see_through(client: JobsClient, job: JobView, out: Path | None, *, as_json: bool) -> ExitCode:
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
