"""`reelmesh artifacts`: remove what expired, and show what made a file; works on the store itself, mesh or no mesh.

The one invariant: nothing is removed here that the mesh's own keeper would not remove: it is the same pass.
"""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.artifacts.store import ArtifactStore
from serving.cli.output import print_json
from serving.errors import BadInput, NotFound
from serving.protocol.artifact import ArtifactRef
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.artifacts.provenance import Provenance
    from serving.jobs.keeper import Report

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Remove expired files; show what made a file.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would go, and remove nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove ended jobs over the bounds of REELMESH_RETENTION__*, and files that no job has needed for a while."""
    report = asyncio.run(_gc(dry_run))
    if as_json:
        print_json(report.as_json())
        return
    would = "would remove" if dry_run else "removed"
    jobs = len(report.jobs_by_age) + len(report.jobs_by_bytes)
    print(f"{would} {jobs} jobs and {len(report.removed)} files ({_size(report.removed_bytes)})")
    if report.unneeded:
        print(f"{len(report.unneeded)} more files are needed by no job; they go after the time of grace")
    left = report.artifact_bytes - report.removed_bytes
    print(f"{report.artifacts - len(report.removed)} files ({_size(left)}) stay for now", file=sys.stderr)


@app.command()
def provenance(
    sha256: Annotated[str, typer.Argument(metavar="SHA256", help="Digest of the file's bytes.")],
) -> None:
    """Show what made a file, as JSON."""
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):  # noqa: PLR2004  hex digits of a SHA-256
        raise BadInput(f"{sha256[:80]!r} is no digest", field="SHA256", fix="give 64 hex digits")
    record = asyncio.run(_provenance(sha256))
    if record is None:
        raise NotFound(f"nothing is known of how {sha256[:12]} was made", fix="check the digest")
    print(record.to_json().decode(), end="")


async def _gc(dry_run: bool) -> "Report":
    from serving.jobs.database import Database
    from serving.jobs.keeper import Keeper

    settings = _settings()
    database = Database(settings.jobs_database_url)
    await database.create()
    try:
        keeper = Keeper(database, ArtifactStore.of(settings), settings.retention)
        return await keeper.pass_once(dry_run=dry_run)
    finally:
        await database.close()


async def _provenance(sha256: str) -> "Provenance | None":
    ref = ArtifactRef(sha256=sha256, size_bytes=0)
    return await ArtifactStore.of(_settings()).provenance(ref)


def _settings() -> Settings:
    """Those of the environment; a home that was never used is a mistake, and is not made."""
    settings = Settings().resolved()
    file = settings.jobs_database_url.removeprefix("sqlite:///")
    if file != settings.jobs_database_url and not Path(file).exists():
        raise NotFound(
            f"there is no jobs database in {settings.home}",
            field="REELMESH_HOME",
            fix="run this where the mesh runs, or set the variable to its home",
        )
    return settings


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"
