"""`reelmesh optimize MODEL`: plugged into the command line through the entry point group
``reelmesh.commands``.

The one invariant: standard output holds the result only (a table, or JSON with ``--json``); progress goes to
standard error, and errors are raised for the root to print.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from serving.errors import BadInput, NotFound
from serving.settings import Settings

app = typer.Typer(subcommand_metavar="", add_completion=False)
"""A group without commands, so that it serves as a sub-command whichever way the root adds it."""


Repositories = Annotated[
    list[Path] | None,
    typer.Option("--model-repository", "--repository", "-r", help="Folder of models; may be given more than once."),
]
Parts = Annotated[
    list[str] | None,
    typer.Option("--part", help="unet, vae_decoder, ...: all without it. May be given more than once."),
]
Weights = Annotated[Literal["fp32", "fp16", "bf16", "int8"], typer.Option(help="Of the exported part's weights.")]
Target = Annotated[
    Literal["onnx", "tensorrt"], typer.Option(help="tensorrt: build plans for the GPU of this machine as well.")
]
Version = Annotated[
    int | None,
    typer.Option(min=1, help="With --target tensorrt: a published version; else the newest of --precision."),
]
PlanOptions = Annotated[
    list[str] | None,
    typer.Option(help="With --target tensorrt: KEY=VALUE, as docs/tensorrt.md has them. May be given repeatedly."),
]
Requests = Annotated[
    Path | None,
    typer.Option(help="JSON lines, each a request of the model's task: shapes, and what calibrates int8."),
]
Output = Annotated[Path, typer.Option(help="Folder of the page, made if it is not there.")]


@app.callback(invoke_without_command=True, context_settings={"allow_interspersed_args": True})
def optimize(
    model: Annotated[str | None, typer.Argument(help="Folder name in the model repository.")] = None,
    *,
    repository: Repositories = None,
    part: Parts = None,
    precision: Weights = "fp32",
    target: Target = "onnx",
    version: Version = None,
    plan: PlanOptions = None,
    requests: Requests = None,
    every: Annotated[bool, typer.Option("--all", help="Every model of the repository that can be exported.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Write a page on all that is published.")] = False,
    output: Output = Path("optimize-report"),
    force: Annotated[bool, typer.Option("--force", help="Export even if nothing changed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reports as JSON.")] = False,
) -> None:
    """Export MODEL, or parts of its network, prove that they are equal, and publish them as new versions.

    Gates, in order: the file loads in ONNX Runtime; it equals torch at the traced and at other sizes; the whole
    model's results stay the same with the part in its place; memory; time. When a gate fails, nothing changes.
    """
    from optimize import command

    repositories = repository or Settings().model_repositories
    if report:
        if model is not None or every or part:
            raise BadInput("the page is on all published parts", field="--report", fix="leave MODEL and --part out")
        command.write_report(repositories, output, as_json=as_json)
        return
    if (model is None) != every:
        fix = "name a MODEL, or give --all" if model is None else "leave one of them out"
        raise BadInput("a MODEL or --all is needed", field="MODEL", fix=fix)
    if requests is not None and not requests.is_file():
        raise NotFound("there is no such file", field="--requests", fix="give JSON lines of requests")
    if version is not None and (model is None or len(part or []) != 1):
        raise BadInput("is of one part", field="--version", fix="name MODEL and one --part")
    asked = command.Asked(part or [], precision, force=force, requests=requests)
    plans = command.plans_of(target, asked, version, plan or [])
    names = command.exportable(repositories, asked, plans=plans) if model is None else [model]
    if not names:
        raise NotFound("no model of the repository can be exported so", field="--all", fix="see docs/optimize.md")
    raise typer.Exit(command.run(names, repositories, asked, plans=plans, as_json=as_json))
