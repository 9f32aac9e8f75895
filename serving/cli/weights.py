"""`reelmesh models pull|verify|gc`: fetch, check and remove weights on this node; a thin layer over serving.weights.

The one invariant: what engines would hold is what is pulled and verified here, by the same code in the same cache.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serving.cli.output import ExitCode, exit_code, print_error, print_json, print_line, print_note, stderr
from serving.errors import BadInput, MissingDependency, NotFound, ReelmeshError
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.weights.cache import WeightsCache
    from serving.weights.needed import Needed
    from serving.weights.progress import Progress

    Bar = Callable[[str, Progress], None]

app = typer.Typer(add_completion=False)

Models = Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="Names or aliases.")]
Repositories = Annotated[
    list[Path] | None,
    typer.Option("--model-repository", "--repository", "-r", help="Folder of models; may be given more than once."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def pull(
    models: Models = None,
    every: Annotated[bool, typer.Option("--all", help="Every model that has weights to fetch.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Fetch anew what is cached, unless it is in use.")] = False,
    repository: Repositories = None,
    as_json: AsJson = False,
) -> None:
    """Fetch weights into this node's cache; branches, tags and buckets are asked what they are now."""
    wanted = _wanted(models, repository, every=every)
    cache = _cache()
    rows: list[dict[str, Any]] = []
    failed: list[ReelmeshError] = []
    if not wanted:
        print_note("no model has weights to fetch")
    with _bars(silent=as_json) as bar:
        for one in wanted:
            try:
                rows.append(_pull(cache, one, bar, again=again))
            except ReelmeshError as error:
                _place(error, one)
                if len(wanted) == 1:
                    raise
                failed.append(error)
                rows.append({"model": one.model.name, "field": one.field, "error": str(error)})
    if as_json:
        print_json(rows)
    else:
        _print_rows([row for row in rows if "error" not in row])
        for problem in failed:
            print_error(problem)
    if failed:
        raise typer.Exit(exit_code(failed[0]))


@app.command()
def verify(models: Models = None, repository: Repositories = None, as_json: AsJson = False) -> None:
    """Read every byte of the weights that are here: digests, safetensors, shards; exit code 1 when one is wrong."""
    cache = _cache()
    found: list[dict[str, Any]] = []
    for one in _wanted(models, repository, every=not models):
        row: dict[str, Any] = {"model": one.model.name, "field": one.field, "label": one.label, "problems": []}
        source = one.model.card.source
        bare = source.uri.startswith("file:") and source.sha256 is None and not source.copied
        row["note"] = " (as files go; the card has no sha256 to compare with)" if bare else ""
        try:
            again = f" (`reelmesh models pull --again {one.model.name}`)"
            row["problems"] = [problem + again for problem in cache.verify(one.model)]
        except (MissingDependency, NotFound) as error:
            _place(error, one)
            if models:
                raise
            found.append({**row, "state": "not here", "note": ""})
            continue
        except ReelmeshError as error:
            _place(error, one)
            row["problems"] = [str(error)]
        note = "" if row["problems"] else row["note"]
        found.append({**row, "state": "damaged" if row["problems"] else "good", "note": note})
    if as_json:
        print_json(found)
    else:
        for row in found:
            print(f"{row['label']}: {row['state']}{row['note']}")
            for problem in row["problems"]:
                print_line(problem)
    if any(row["problems"] for row in found):
        raise typer.Exit(ExitCode.FAILED)


@app.command()
def gc(
    to: Annotated[
        int | None, typer.Option(min=0, metavar="BYTES", help="How much may stay. (default: weights.cache_bytes)")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would go, and remove nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove the weights used longest ago until the rest fits, never any in use."""
    cache = _cache()
    removed = cache.collect(to, dry_run=dry_run)
    stay = cache.size_bytes() - (sum(one.size_bytes for one in removed) if dry_run else 0)
    if as_json:
        print_json({"removed": [asdict(one) for one in removed], "stay_bytes": stay, "dry_run": dry_run})
        return
    for one in removed:
        print(f"{one.uri}{f' at {one.revision}' if one.revision else ''}: {_size(one.size_bytes)}")
    would = "would remove" if dry_run else "removed"
    print_note(f"{would} {_size(sum(one.size_bytes for one in removed))}; {_size(stay)} stay")


def _pull(cache: "WeightsCache", one: "Needed", bar: "Bar", *, again: bool) -> dict[str, Any]:
    if again and not cache.discard(one.model):
        fix = "stop what uses them, or pull without --again"
        raise BadInput(f"weights of {one.label} are in use", field="--again", fix=fix)
    with cache.pull(one.model, progress=lambda progress: bar(one.label, progress)) as held:
        return {
            "model": one.model.name,
            "field": one.field,
            "label": one.label,
            "uri": one.model.card.source.uri,
            "revision": held.revision,
            "digest": held.digest,
            "size_bytes": held.manifest.size_bytes,
            "download_s": round(held.download_s, 3),
            "folder": str(held.folder),
        }


def _place(error: ReelmeshError, one: "Needed") -> None:
    """Errors of a part's or an adapter's source name that one in the card."""
    if error.field is not None:
        error.field = error.field.replace("/model.yaml:source", f"/model.yaml:{one.field}")


def _print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """One line a model on stdout: its name and the folder; what was done to stderr."""
    for row in rows:
        print(f"{row['label']}\t{row['folder']}")
        how = f"fetched in {row['download_s']:.1f} s" if row["download_s"] else "was here"
        revision = f" at {row['revision']}" if row["revision"] else ""
        print_note(f"{row['label']}: {_size(row['size_bytes'])}{revision} {how}")


def _wanted(names: list[str] | None, repository: list[Path] | None, *, every: bool) -> "list[Needed]":
    """The sources of the models that are named, or of all that have weights to look after."""
    from serving.repository.load import load_repository
    from serving.weights.needed import Needed, sources_of

    paths = [path.expanduser() for path in repository or Settings().model_repositories]
    known = load_repository(paths)
    if names and not every:
        named = [known.get(name) for name in names]
        # A record is kept in, for the error that says so.
        return [one for model in named for one in sources_of(model) or [Needed(model.name, "source", model)]]
    if not every or names:
        problem = "no model is named" if not names else "both names and --all are given"
        raise BadInput(problem, field="MODEL", fix="give names or --all")
    return [one for model in known.models.values() for one in sources_of(model)]


def _cache() -> "WeightsCache":
    from serving.weights.cache import WeightsCache

    return WeightsCache.of(Settings().resolved())


@contextmanager
def _bars(*, silent: bool) -> "Iterator[Bar]":
    """A bar for each source on a terminal; nothing where nobody looks."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    console = stderr()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bars = Bars(*columns, TimeRemainingColumn(), console=console, disable=silent or not console.is_terminal)
    tasks: dict[str, Any] = {}

    def show(label: str, progress: "Progress") -> None:
        if label not in tasks:
            tasks[label] = bars.add_task(label, total=None)
        bars.update(tasks[label], completed=progress.done_bytes, total=progress.total_bytes)

    with bars:
        yield show


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"
