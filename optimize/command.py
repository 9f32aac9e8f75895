"""What `reelmesh optimize` does once its arguments are known: progress, tables, and what went wrong; see optimize.cli.

The one invariant: one model or part that fails does not keep the others from being done, and the exit code says so.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from optimize import run as recipes
from optimize.page import collect, write_page
from optimize.parts.part import FAMILIES, family_name
from optimize.parts.plans import build_plans
from optimize.parts.run import optimize_parts
from optimize.parts.work import STEPS, Asked, PartOutcome
from serving.errors import BadInput, MissingDependency, NotFound, ReelmeshError
from serving.repository.load import load_repository
from serving.repository.model import Model
from serving.repository.read import RawModel, read_model
from serving.settings import Settings
from serving.weights.cache import WeightsCache

if TYPE_CHECKING:
    from optimize.report import Report

__all__ = ["Asked", "exportable", "run", "write_report"]

Notify = Callable[[str, str], None]


def exportable(repositories: Sequence[Path]) -> list[str]:
    """Models that a recipe or a family of parts exports."""
    models = load_repository(repositories).models
    return [name for name, model in models.items() if model.card.export or family_name(model.card) in FAMILIES]


def run(names: Sequence[str], repositories: Sequence[Path], asked: Asked, *, target: str, as_json: bool) -> int:
    """Export models one after the other.

    Args:
        names: of the models.
        repositories: that they are in.
        asked: parts and precision.
        target: ``onnx``, or ``tensorrt`` for plans as well.
        as_json: print the reports.

    Returns:
        The exit code: 0; 1 where something failed; 3 where nothing failed but that something is not installed.
    """
    outcomes: list[PartOutcome] = []
    errors: list[ReelmeshError] = []
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        for name in names:
            task = progress.add_task(name, total=len(STEPS))
            try:
                notify = partial(_told, progress, task, name)
                outcomes += one(
                    find_folder(name, repositories), repositories, asked, notify, plans=target == "tensorrt"
                )
            except ReelmeshError as error:
                if len(names) == 1:
                    raise
                errors.append(error)
                _complain(console, name, error)
            progress.remove_task(task)
    show(outcomes, as_json=as_json)
    for outcome in outcomes:
        if outcome.error is not None:
            errors.append(outcome.error)
            _complain(console, f"{outcome.part}", outcome.error)
    if not errors:
        return 0
    return 3 if all(isinstance(error, MissingDependency) for error in errors) else 1


def _complain(console: Console, name: str, error: ReelmeshError) -> None:
    console.print(f"{name}: {error}", style="red", highlight=False, markup=False, soft_wrap=True)


def _told(progress: Progress, task: TaskID, name: str, part: str, step: str) -> None:
    done = next((index for index, known in enumerate(STEPS) if step.startswith(known)), None)
    progress.update(task, description=f"{name} {part}: {step}" if part else f"{name}: {step}", completed=done)


def one(
    folder: Path, repositories: Sequence[Path], asked: Asked, notify: Notify, *, plans: bool = False
) -> list[PartOutcome]:
    """Export a model by its recipe, or its parts, and their TensorRT plans if they are wanted."""
    raw = read_model(folder)
    if raw.card is not None and raw.card.export is None and family_name(raw.card) in FAMILIES:
        model = load_repository(repositories).get(raw.name)
        outcomes = optimize_parts(model, asked, WeightsCache.of(Settings()), notify)
        return [_planned(model, outcome, notify) for outcome in outcomes] if plans else outcomes
    if asked.parts or asked.precision != "fp32":
        raise BadInput(f"{raw.name} is exported whole", field="--part", fix="leave --part and --precision out")
    return [_whole(raw, asked, notify)]


def _planned(model: Model, outcome: PartOutcome, notify: Notify) -> PartOutcome:
    if outcome.error is not None:
        return outcome
    try:
        build_plans(model, outcome.folder, lambda step: notify(outcome.part, f"tensorrt: {step}"))
    except ReelmeshError as error:
        return replace(outcome, error=error)
    return outcome


def _whole(raw: RawModel, asked: Asked, notify: Notify) -> PartOutcome:
    outcome = recipes.optimize(raw, force=asked.force, notify=lambda step: notify("", step))
    return PartOutcome("", outcome.status, outcome.folder, outcome.report)


def find_folder(model: str, repositories: Sequence[Path]) -> Path:
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


WORDS = {
    "published": "published as version {}",
    "same_bytes": "the same bytes as version {}: only its report is new",
    "up_to_date": "version {} is up to date (--force exports again)",
}


def show(outcomes: Sequence[PartOutcome], *, as_json: bool) -> None:
    """A line on what was done and a table of parity and speed."""
    if as_json:
        rows = [{"status": outcome.status, "folder": str(outcome.folder), **_details(outcome)} for outcome in outcomes]
        typer.echo(json.dumps(rows[0] if len(rows) == 1 else rows))
        return
    console = Console(highlight=False, soft_wrap=True)
    for outcome in outcomes:
        if outcome.report is not None:
            words = WORDS[outcome.status].format(outcome.report.version)
            console.print(f"{outcome.folder.parent.name}: {words}: {outcome.folder}")
            console.print(_table(outcome.report))
            console.print(_how_to_use(outcome.report, outcome.folder))


def _details(outcome: PartOutcome) -> dict[str, object]:
    if outcome.report is not None:
        return outcome.report.model_dump()
    return {"part": outcome.part, "problem": str(outcome.error)}


def _table(report: "Report") -> Table:
    table = Table("case", "largest difference", *report.timing[0].ms, "faster")
    for timing in report.timing:
        worst = max((row.relative for row in report.parity if row.case == timing.case), default=report.worst)
        table.add_row(
            timing.case,
            f"{worst:.1e} of {report.relative_tolerance:.0e}",
            *(f"{ms:.2f} ms" for ms in timing.ms.values()),
            f"{timing.speedup:.1f}x",
        )
    return table


def _how_to_use(report: "Report", folder: Path) -> str:
    """The lines of model.yaml that put a part to work."""
    if not report.part:
        return ""
    chosen = f"optimized: {{{report.part}: {{model: {folder.parent.name}, version: {report.version}}}}}"
    return f"to use it, add to {report.model}/model.yaml:  {chosen}\n"


def write_report(repositories: Sequence[Path], folder: Path, *, as_json: bool) -> None:
    """One page on everything that is published."""
    reports = collect(repositories)
    files = write_page(folder, reports, repositories)
    if as_json:
        typer.echo(json.dumps({"reports": len(reports), "files": [str(file) for file in files]}))
        return
    for file in files:
        typer.echo(str(file))
