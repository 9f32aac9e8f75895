"""`reelmesh models`: list, show, lint and write config.pbtxt; a thin layer over serving.repository.

The one invariant: nothing here decides anything about a model; what is printed is what the loader and lint say.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serving.cli import weights
from serving.cli.gpus import gpu_memories_mib
from serving.cli.output import ExitCode, print_json, stderr, stdout
from serving.cli.tiny import tiny
from serving.errors import BadInput
from serving.settings import Settings

if TYPE_CHECKING:
    from rich.table import Table

    from serving.repository.findings import Finding
    from serving.repository.model import Model

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Look at the model repository and at weights.")
app.add_typer(weights.app)  # without a name: its commands stand beside these

app.command()(tiny)


Repositories = Annotated[
    list[Path] | None,
    typer.Option(
        "--model-repository",
        "--repository",
        "-r",
        help="Folder of models; may be given more than once, the first one wins.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_models(
    repository: Repositories = None,
    task: Annotated[str | None, typer.Option(help="Only models of this task.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the models with what serves them and what they lease."""
    from serving.repository.load import load_repository

    models = list(load_repository(_paths(repository)).models.values())
    if task is not None:
        models = [model for model in models if model.card.task == task]
    if as_json:
        print_json([summary(model) for model in models])
        return
    stdout().print(_list_table(models))


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="Name or alias.")],
    repository: Repositories = None,
    as_json: AsJson = False,
) -> None:
    """Show one model: card, tensors, voices, versions."""
    from serving.repository.load import load_repository

    found = load_repository(_paths(repository)).get(model)
    if as_json:
        print_json(details(found))
        return
    console = stdout()
    console.print(_show_table(found))
    console.print(_tensor_table(found))
    if found.card.voices:
        console.print(_voice_table(found))


@app.command()
def lint(
    target: Annotated[
        str | None,
        typer.Argument(metavar="[DIR|MODEL]", help="A folder of models, a model's folder or a model; all without it."),
    ] = None,
    repository: Repositories = None,
    gpu_memory_mib: Annotated[
        float | None,
        typer.Option(
            min=1, help="Memory of a GPU, to compare declared memory with; this machine's smallest without it."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every config.pbtxt and model.yaml; exit code 1 when Triton or the mesh would refuse something."""
    from serving.cli.engines import known_engines
    from serving.repository.lint import Target, target_of
    from serving.repository.lint import lint as run_lint

    paths = _paths(repository)
    wanted = Target(paths) if target is None else target_of(target, paths)
    gpu_mib = gpu_memory_mib or min(gpu_memories_mib(), default=None)
    findings = run_lint(wanted.paths, known_engines(), model=wanted.model, gpu_mib=gpu_mib)
    counts = Counter(finding.severity for finding in findings)
    if as_json:
        print_json([finding_json(finding) for finding in findings])
    else:
        _print_findings(findings)
        colour = "red" if counts["error"] else "yellow" if counts["warning"] else "green"
        text = f"{_count(counts['error'], 'error')}, {_count(counts['warning'], 'warning')}"
        stderr().print(f"[{colour}]{text}[/]")
    if counts["error"]:
        raise typer.Exit(ExitCode.FAILED)


@app.command()
def config(
    model: Annotated[str, typer.Argument(help="Name that the model has or will have.")],
    task: Annotated[str | None, typer.Option(help="Task; by default the one in model.yaml.")] = None,
    repository: Repositories = None,
) -> None:
    """Print the config.pbtxt that a Ray model of a task needs."""
    from serving.protocol.task_tensors import config_text
    from serving.protocol.tasks import TASKS

    wanted = task or _task_of(model, _paths(repository))
    if wanted not in TASKS:
        raise BadInput(f"no task {wanted!r} with typed tensors", field="--task", fix=f"use one of {', '.join(TASKS)}")
    typer.echo(config_text(model, wanted), nl=False)


def summary(model: "Model") -> dict[str, Any]:
    """One row of `models list --json`."""
    card = model.card
    return {
        "name": model.name,
        "task": card.task,
        "default": card.default,
        "optional": card.optional,
        "backend": card.backend,
        "engine": card.engine,
        "replica_group": model.replica_group,
        "versions": list(model.versions),
        "share": card.share.model_dump(),
        "replicas": card.replicas.model_dump(),
        "license": card.license.model_dump(),
        "aliases": card.aliases,
    }


def details(model: "Model") -> dict[str, Any]:
    """`models show --json`: the card, the folder, and the tensors as the config declares them."""
    return {
        "name": model.name,
        "folder": str(model.folder),
        "replica_group": model.replica_group,
        "versions": list(model.versions),
        "card": model.card.model_dump(mode="json"),
        "max_batch_size": model.config.max_batch_size,
        "inputs": [_tensor_json(tensor) for tensor in model.config.input],
        "outputs": [_tensor_json(tensor) for tensor in model.config.output],
    }


def finding_json(finding: "Finding") -> dict[str, Any]:
    """One element of `models lint --json`."""
    return {
        "severity": finding.severity,
        "file": str(finding.file),
        "line": finding.line,
        "field": finding.field,
        "problem": finding.problem,
        "fix": finding.fix,
    }


def _paths(repository: list[Path] | None) -> list[Path]:
    return [path.expanduser() for path in repository or Settings().model_repositories]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _task_of(name: str, paths: list[Path]) -> str:
    """The task in a card that may be the only valid file in its folder."""
    from serving.repository.load import read_repositories

    raws, _ = read_repositories(paths)
    for raw in raws:
        if raw.name == name and raw.card is not None:
            return raw.card.task
    raise BadInput(f"no model.yaml that says which task {name!r} does", field="--task", fix="name the task")


def _print_findings(findings: "list[Finding]") -> None:
    """On stdout, one plain line each, so that editors and grep can read them."""
    for finding in findings:
        typer.echo(f"{finding.severity}: {finding.render(Path.cwd())}")


def _table(title: str, *columns: str) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(*columns, title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)


def _list_table(models: "list[Model]") -> "Table":
    from rich.markup import escape

    table = _table(
        _count(len(models), "model"), "model", "task", "served by", "engine", "versions", "CPU", "GPU", "licence"
    )
    for model in models:
        card = model.card
        colours = {True: ("green", ""), False: ("red", ", not commercial"), "conditional": ("yellow", ", conditional")}
        terms, said = colours[card.license.commercial_use]
        marks = [word for word, holds in (("optional", card.optional), ("default", card.default)) if holds]
        table.add_row(
            f"[bold]{model.name}[/]" + (f" [dim]({', '.join(marks)})[/]" if marks else ""),
            card.task,
            f"[cyan]{model.replica_group}[/]" if card.backend == "triton" else f"ray: {model.replica_group}",
            escape(card.engine),
            ", ".join(map(str, model.versions)) or "[dim]-[/]",
            f"{card.share.cpu:g}",
            f"{card.share.gpu:g}" if card.share.gpu else "[dim]-[/]",
            f"[{terms}]{escape(card.license.name)}{said}[/]",
        )
    return table


def _show_table(model: "Model") -> "Table":
    from rich.markup import escape

    card, licence = model.card, model.card.license
    on_condition = f"commercial use if {licence.condition}" if licence.condition else "terms unknown"
    commercial = {True: "commercial use allowed", False: "no commercial use", "conditional": on_condition}
    memory = card.memory
    rows = {
        "task": card.task + (" (default)" if card.default else ""),
        "served by": f"{card.backend}, engine {card.engine}, deployment {model.replica_group}"
        + (", where asked for" if card.optional else ""),
        "architecture": card.architecture or "",
        "weights": card.source.text,
        "licence": f"{licence.name}, {commercial[licence.commercial_use]}",
        "languages": ", ".join(card.languages),
        "precision": card.precision,
        "memory": f"{memory.weights_mib:g} MiB, peak {memory.peak_mib:g} MiB ({memory.measured_on})" if memory else "",
        "share": f"{card.share.cpu:g} CPU, {card.share.gpu:g} GPU",
        "replicas": f"{card.replicas.min} to {card.replicas.max}, {card.replicas.target_ongoing:g} requests each",
        "versions": ", ".join(map(str, model.versions)),
        "fallback": ", ".join(card.fallback),
        "aliases": ", ".join(card.aliases),
        "limits": ", ".join(f"{name} {bound:g}" for name, bound in card.limits.items()),
        "adapters": ", ".join(card.adapters),
        "cold start": _cold_start(model),
        "not served": "; ".join(card.gaps),
        "folder": str(model.folder),
    }
    table = _table(escape(f"{model.name}: {card.description}"), "", "")
    table.show_header = False
    for name, text in rows.items():
        if text:
            table.add_row(f"[dim]{name}[/]", escape(text))
    return table


def _cold_start(model: "Model") -> str:
    """What the newest one on this machine took, if it was of the weights that the card names."""
    from serving.backends.cold_start import COLD_STARTS, read_cold_start

    took = read_cold_start(Settings().home.expanduser() / COLD_STARTS, model.name)
    if took is None or took.source != model.card.source.text:
        return ""
    warm_up = "" if took.warm_up_s is None else f", {took.warm_up_s:.2f} s first request"
    return f"{took.download_s:.2f} s download, {took.load_s:.2f} s load{warm_up} ({took.precision} on {took.device})"


def _tensor_table(model: "Model") -> "Table":
    table = _table(f"tensors, max_batch_size {model.config.max_batch_size}", "", "name", "type", "shape", "")
    for kind, tensors in (("in", model.config.input), ("out", model.config.output)):
        for tensor in tensors:
            row = _tensor_json(tensor)
            table.add_row(
                f"[dim]{kind}[/]", row["name"], row["type"], str(row["dims"]), "optional" if row["optional"] else ""
            )
    return table


def _voice_table(model: "Model") -> "Table":
    from rich.markup import escape

    table = _table(_count(len(model.card.voices), "voice"), "voice", "language", "gender", "description")
    for name, voice in model.card.voices.items():
        table.add_row(f"[bold]{escape(name)}[/]", voice.language, voice.gender, escape(voice.description))
    return table


def _tensor_json(tensor: Any) -> dict[str, Any]:  # noqa: ANN401  ModelInput or ModelOutput
    from tritonclient.grpc.model_config_pb2 import DataType

    return {
        "name": tensor.name,
        "type": DataType.Name(tensor.data_type),
        "dims": list(tensor.dims),
        "optional": bool(getattr(tensor, "optional", False)),
    }
