"""One optimisation from card to published version: fingerprint, export, gates, publish; called by
optimize.cli.

The one invariant: until every gate has passed, nothing in the model repository changes.
"""

import hashlib
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Final, Literal, NamedTuple

from optimize import canonical, gates, triton_config
from optimize import recipe as recipe_module
from optimize.external import size_with_data
from optimize.publish import MODEL_FILE, next_version, publish, write_report
from optimize.recipe import Recipe, find_recipe
from optimize.report import Report, machine, read_report
from optimize.threads import THREADS
from serving.errors import BadInput
from serving.repository.model import Export
from serving.repository.plan_file import onnx_digest
from serving.repository.read import RawModel

Notify = Callable[[str], None]

STEPS: Final = ("export", "load", "parity", "benchmark", "publish")
"""What ``notify`` is told, in order."""


class Outcome(NamedTuple):
    """What came of it: a new version, the same bytes as before, or nothing to do."""

    status: Literal["published", "same_bytes", "up_to_date"]
    folder: Path
    report: Report


def optimize(model: RawModel, *, force: bool = False, notify: Notify = lambda step: None) -> Outcome:
    """Export a model by its card's recipe and publish it as the next version.

    Args:
        model: as read from the repository; a missing config.pbtxt or version folder is no error here.
        force: export even if nothing changed since the newest version.
        notify: told each of :data:`STEPS` when it begins.

    Raises:
        BadInput: the card has no export section, or contradicts the recipe.
        MissingDependency: the recipe's packages are not installed.
        EngineFailed: export failed or a gate did not pass; nothing was published.
    """
    export, recipe = export_of(model)
    newest = model.folder / str(max(model.versions, default=0))
    fingerprint = fingerprint_of(recipe, export)
    before = read_report(newest)
    whole = (
        before is not None
        and (newest / MODEL_FILE).is_file()
        and onnx_digest(newest / MODEL_FILE) == before.onnx_sha256
    )
    if before is not None and whole and before.fingerprint == fingerprint and not force:
        return Outcome("up_to_date", newest, before)
    if model.config is not None:
        triton_config.check(model.config_file, model.config, recipe)
    config = None if model.config_file.exists() else triton_config.render(model.name, recipe)
    with tempfile.TemporaryDirectory(prefix="reelmesh-optimize-") as scratch:
        onnx, report = make(model.name, recipe, export, Path(scratch), notify)
        notify("publish")
        report = report.model_copy(update={"fingerprint": fingerprint})
        if (
            (newest / MODEL_FILE).is_file()
            and onnx_digest(newest / MODEL_FILE) == report.onnx_sha256
            and config is None
        ):
            report = report.model_copy(update={"version": int(newest.name)})
            write_report(newest, report)
            return Outcome("same_bytes", newest, report)
        report = report.model_copy(update={"version": next_version(model.versions)})
        files = [file for file in (onnx, onnx.with_name(f"{onnx.name}.data")) if file.exists()]
        texts = {} if config is None else {"config.pbtxt": config}
        return Outcome("published", publish(model.folder, files, report, texts), report)


def make(name: str, recipe: Recipe, export: Export, scratch: Path, notify: Notify) -> tuple[Path, Report]:
    """Export into ``scratch`` and pass the gates; the report still lacks version and fingerprint."""
    notify("export")
    with recipe.build(scratch, export.opset) as built:
        notify("load")
        session = gates.Session(built.onnx, recipe)
        cases = recipe.cases()
        notify("parity")
        parity = gates.check_parity(session, built, cases, export.relative_tolerance)
        notify("benchmark")
        timing = gates.benchmark(session, built, cases)
        report = Report(
            model=name,
            version=0,
            recipe=export.recipe,
            fingerprint="",
            onnx_sha256=onnx_digest(built.onnx),
            onnx_bytes=size_with_data(built.onnx),
            opset=export.opset,
            relative_tolerance=export.relative_tolerance,
            tools={**built.tools, "onnxruntime": metadata.version("onnxruntime")},
            parity=parity,
            timing=timing,
            threads=THREADS,
            machine=machine(),
        )
        return built.onnx, report


def export_of(model: RawModel) -> tuple[Export, Recipe]:
    """The card's export section and its recipe."""
    if model.findings and model.card is None:
        first = model.findings[0]
        raise BadInput(first.problem, field=f"{first.file}:{first.field}", fix=first.fix)
    if model.card is None or model.card.export is None:
        raise BadInput(
            f"model {model.name!r} has nothing to export",
            field=f"{model.card_file}:export",
            fix="add export: {recipe: NAME, relative_tolerance: 0.0001}",
        )
    return model.card.export, find_recipe(model.card.export.recipe)


def fingerprint_of(recipe: Recipe, export: Export) -> str:
    """SHA-256 over all that decides the result."""
    total = hashlib.sha256(export.model_dump_json().encode())
    own = (Path(recipe_module.__file__), Path(canonical.__file__), Path(gates.__file__))
    for file in (*own, *recipe.sources()):
        total.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    for package in (*recipe.packages(), "onnxruntime"):
        total.update(f"{package}=={metadata.version(package)}\n".encode())
    return total.hexdigest()
