"""What `reelmesh optimize` does once its arguments are known: progress, tables, and what went wrong; see optimize.cli.

The one invariant: one model or part that fails does not keep the others from being done, and the exit code says so.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from optimize import run as recipes
from optimize.page import collect, write_page
from optimize.parts.part import FAMILIES, family_name, find_family
from optimize.parts.plans import build_plans
from optimize.parts.run import chosen_parts, optimize_parts
from optimize.parts.work import STEPS, Asked, PartOutcome, part_folder
from optimize.publish import is_whole, published, versions
from optimize.tensorrt.options import Options, options_of
from serving.errors import BadInput, MissingDependency, NotFound, ReelmeshError
from serving.repository.checks import check_model
from serving.repository.findings import errors
from serving.repository.load import checked, load_sound
from serving.repository.model import Model
from serving.repository.read import RawModel, read_model
from serving.settings import Settings
from serving.weights.cache import WeightsCache

if TYPE_CHECKING:
    from optimize.report import Report

__all__ = ["Asked", "Plans", "exportable", "plans_of", "run", "write_report"]

Notify = Callable[[str, str], None]


@dataclass(frozen=True)
class Plans:
    """TensorRT plans that are wanted.

    Attributes:
        options: of the plans.
        version: of the part that they are built of; None is the newest of the precision, which is exported if there is
            none.
    """

    options: Options
    version: int | None = None


def plans_of(target: str, asked: Asked, version: int | None, pairs: Sequence[str]) -> Plans | None:
    """The plans that the command line wants.

    Raises:
        BadInput: options of plans where none are wanted, or a precision that TensorRT does not take from us.
    """
    if target != "tensorrt":
        if version is not None or pairs:
            field = "--version" if version else "--plan"
            raise BadInput("is of plans alone", field=field, fix="add --target tensorrt")
        return None
    if version is not None and (asked.force or asked.requests):
        given = "--force" if asked.force else "--requests"
        raise BadInput("a published version is not exported", field=given, fix=f"leave --version or {given} out")
    if asked.precision == "int8":
        problem = "int8 parts are quantised for CPUs, and TensorRT wants symmetric ones"
        raise BadInput(problem, field="--precision", fix="use fp16 or bf16 with --target tensorrt")
    return Plans(options_of(pairs), version)


def exportable(repositories: Sequence[Path], asked: Asked, *, plans: Plans | None) -> list[str]:
    """Models of which a recipe or a family of parts exports what is asked; a model that is broken is left out."""
    models = load_sound(repositories).models
    return [name for name, model in models.items() if _can(model, asked, plans)]


def _can(model: Model, asked: Asked, plans: Plans | None) -> bool:
    if model.card.export is not None:
        return not _beyond_recipe(asked, plans)
    if family_name(model.card) not in FAMILIES:
        return False
    try:
        return bool(chosen_parts(model.name, find_family(model.name, model.card), asked))
    except BadInput:
        return False
    except MissingDependency:
        return True  # its turn comes, and it says what is missing


def _beyond_recipe(asked: Asked, plans: Plans | None) -> str:
    """The option that a recipe cannot do; empty where there is none."""
    options = {
        "--part": asked.parts,
        "--precision": asked.precision != "fp32",
        "--requests": asked.requests,
        "--target": plans,
    }
    return next((option for option, given in options.items() if given), "")


def run(names: Sequence[str], repositories: Sequence[Path], asked: Asked, *, plans: Plans | None, as_json: bool) -> int:
    """Export models one after the other.

    Args:
        names: of the models.
        repositories: that they are in.
        asked: parts and precision.
        plans: of TensorRT that are wanted as well.
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
                bar = partial(_told, progress, task, name)
                notify: Notify = bar if console.is_terminal else Lines(console, name)
                outcomes += one(find_folder(name, repositories), repositories, asked, notify, plans)
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


class Lines:
    """Tells each step once, in a line, where no terminal shows a bar.

    Args:
        console: of standard error.
        name: of the model.
    """

    def __init__(self, console: Console, name: str) -> None:
        self._console, self._name = console, name
        self._last = ""

    def __call__(self, part: str, step: str) -> None:
        """Details after a colon are of the same step."""
        line = f"{self._name} {part}".strip() + f": {step.partition(':')[0]}"
        if line != self._last:
            self._last = line
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def _complain(console: Console, name: str, error: ReelmeshError) -> None:
    console.print(f"{name}: {error}", style="red", highlight=False, markup=False, soft_wrap=True)


def _told(progress: Progress, task: TaskID, name: str, part: str, step: str) -> None:
    done = next((index for index, known in enumerate(STEPS) if step.startswith(known)), None)
    progress.update(task, description=f"{name} {part}: {step}" if part else f"{name}: {step}", completed=done)


def one(
    folder: Path, repositories: Sequence[Path], asked: Asked, notify: Notify, plans: Plans | None = None
) -> list[PartOutcome]:
    """Export a model by its recipe, or its parts, and their TensorRT plans if they are wanted."""
    raw = read_model(folder)
    if raw.card is not None and raw.card.export is None and family_name(raw.card) in FAMILIES:
        model = _model_of(raw, repositories)
        return _parts(model, asked, notify) if plans is None else _with_plans(model, asked, plans, notify)
    if raw.card is not None and raw.card.export is not None and (option := _beyond_recipe(asked, plans)):
        raise BadInput(f"{raw.name} is exported whole, in fp32", field=option, fix=f"leave {option} out")
    return [_whole(raw, asked, notify)]


def _parts(model: Model, asked: Asked, notify: Notify) -> list[PartOutcome]:
    return optimize_parts(model, asked, WeightsCache.of(Settings()), notify)


def _with_plans(model: Model, asked: Asked, plans: Plans, notify: Notify) -> list[PartOutcome]:
    """Plans of published versions, which need neither an export nor the model's weights; of others after an export."""
    there = {}
    for name in chosen_parts(model.name, find_family(model.name, model.card), asked):
        found = None if asked.force or asked.requests else _published(model, name, asked, plans)
        if found is None and plans.version is not None:
            known = ", ".join(map(str, sorted(versions(part_folder(model, name))))) or "none"
            raise NotFound(f"{name} has no version {plans.version}", field="--version", fix=f"there are: {known}")
        there[name] = found
    left = [name for name, found in there.items() if found is None]
    made = _parts(model, replace(asked, parts=left), notify) if left else []
    there |= {outcome.part: outcome for outcome in made}
    return [_planned(model, outcome, plans, notify) for outcome in there.values() if outcome is not None]


def _published(model: Model, name: str, asked: Asked, plans: Plans) -> PartOutcome | None:
    """The version that is named, or the newest of the precision."""
    for version, report in published(part_folder(model, name)):
        wanted = int(version.name) == plans.version if plans.version else report.precision == asked.precision
        if wanted and is_whole(version, report):
            return PartOutcome(name, "up_to_date", version, report)
    return None


def _model_of(raw: RawModel, repositories: Sequence[Path]) -> Model:
    """The model, even where a part that its card chooses is not there or broken: this command is to make it."""
    repository = load_sound(repositories)
    if raw.name in repository.models:
        return repository.get(raw.name)
    if raw.card is not None and raw.card.optimized and not errors([*raw.findings, *check_model(raw)]):
        return checked(replace(raw, card=raw.card.model_copy(update={"optimized": {}})))
    raise repository.broken.get(raw.name) or BadInput("the model is hidden by another", field=str(raw.folder))


def _planned(model: Model, outcome: PartOutcome, plans: Plans, notify: Notify) -> PartOutcome:
    if outcome.error is not None:
        return outcome
    try:
        misfit = build_plans(
            model, outcome.folder, plans.options, lambda step: notify(outcome.part, f"tensorrt: {step}")
        )
    except ReelmeshError as error:
        return replace(outcome, error=error)
    return replace(outcome, note=f"Triton cannot serve its plans: {misfit}" if misfit else "")


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
        if outcome.note:
            console.print(f"{outcome.folder.parent.name}: {outcome.note}", markup=False)


def _details(outcome: PartOutcome) -> dict[str, object]:
    if outcome.report is not None:
        told: dict[str, object] = json.loads(outcome.report.model_dump_json())  # infinities as JSON can say them
        return told
    gates = [row.model_dump() for row in outcome.gates]
    return {"part": outcome.part, "gates": gates, "problem": str(outcome.error)}


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
