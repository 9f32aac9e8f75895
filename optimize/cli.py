"""`reelmesh optimize MODEL`: plugged into the command line through the entry point group
``reelmesh.commands``.

The one invariant: standard output holds the result only (a table, or JSON with ``--json``); progress goes to
standard error, and errors are raised for the root to print.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from serving.errors import NotFound
from serving.settings import Settings

if TYPE_CHECKING:
    from optimize.run import Outcome

app = typer.Typer(subcommand_metavar="", add_completion=False)
"""A group without commands, so that it serves as a sub-command whichever way the root adds it."""


@app.callback(invoke_without_command=True, context_settings={"allow_interspersed_args": True})
def optimize(
    model: Annotated[str, typer.Argument(help="Folder name in the model repository.")],
    repository: Annotated[
        list[Path] | None,
        typer.Option("--model-repository", "--repository", "-r", help="Folder of models; may be given more than once."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Export even if nothing changed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Export MODEL by the recipe its model.yaml names.

    Gates, in order: the file loads in ONNX Runtime; it equals its reference at the traced and at other
    shapes; both are timed. Only then it becomes the next version folder, with report.json and report.md. When
    a gate fails, nothing changes.
    """
    run(model, repository or Settings().model_repositories, force=force, as_json=as_json)


def run(model: str, repositories: list[Path], *, force: bool, as_json: bool) -> None:
    """Do it with a progress bar and print what came of it."""
    from optimize import run as runner
    from serving.repository.read import read_model

    raw = read_model(find_folder(model, repositories))
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(model, total=len(runner.STEPS))

        def notify(step: str) -> None:
            progress.update(task, completed=runner.STEPS.index(step), description=f"{model}: {step}")

        outcome = runner.optimize(raw, force=force, notify=notify)
    if as_json:
        typer.echo(json.dumps({"status": outcome.status, "folder": str(outcome.folder), **outcome.report.model_dump()}))
        return
    print_outcome(outcome)


def print_outcome(outcome: "Outcome") -> None:
    """A line on what was done and a table of parity and speed."""
    report = outcome.report
    words = {
        "published": f"published as version {report.version}",
        "same_bytes": f"the same bytes as version {report.version}: only its report is new",
        "up_to_date": f"version {report.version} is up to date (--force exports again)",
    }
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{report.model}: {words[outcome.status]}: {outcome.folder}")
    table = Table("case", "largest difference", "reference", "ONNX Runtime", "faster")
    for timing in report.timing:
        worst = max(row.relative for row in report.parity if row.case == timing.case)
        table.add_row(
            timing.case,
            f"{worst:.1e} of {report.relative_tolerance:.0e}",
            f"{timing.reference_ms:.2f} ms",
            f"{timing.onnx_ms:.2f} ms",
            f"{timing.speedup:.1f}x",
        )
    console.print(table)


def find_folder(model: str, repositories: list[Path]) -> Path:
    """The model's folder in the first repository that has it; NotFound names the models there are."""
    folders = {
        path.name: path.resolve()
        for repository in reversed(repositories)
        if repository.is_dir()
        for path in sorted(repository.iterdir())
        if path.is_dir() and not path.name.startswith((".", "_"))
    }
    if model not in folders:
        known = ", ".join(sorted(folders)) or "none"
        where = ", ".join(str(path) for path in repositories)
        raise NotFound(f"no model {model[:128]!r} in {where}", field="model", fix=f"there are: {known}")
    return folders[model]
