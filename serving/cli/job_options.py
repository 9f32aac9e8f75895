"""What the commands for jobs have in common: their options, and how they run; used by the modules of `reelmesh jobs`.

The one invariant: an option of one name means the same in every command.
"""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from serving.cli.output import ExitCode
from serving.settings import Settings

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
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Stay until the job has ended.")]

StopAt = Annotated[str | None, typer.Option("--stop-at", metavar="STAGE", help="End after this stage.")]


def mesh_url(host: str) -> str:
    """The address a client uses: what was named, or this machine's mesh by its settings."""
    if host:
        return host if "://" in host else f"http://{host}"
    edge = Settings().edge
    return f"http://{edge.host}:{edge.http_port}"


def run_command(work: Coroutine[Any, Any, ExitCode]) -> None:
    """Run a command to its end, and leave with its code."""
    raise typer.Exit(asyncio.run(work))
