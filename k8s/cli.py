"""`reelmesh k8s`: render the manifests, say whether the rendered ones are up to date, render the Job that builds
TensorRT plans; plugged in by an entry point.

The one invariant: results go to stdout, and nothing talks to a cluster.
"""

import json
from pathlib import Path
from typing import Annotated, Final

import typer

from serving.errors import BadInput, Conflict, NotFound
from serving.settings import Settings

BASE: Final = Path("k8s/base")

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Render and check the Kubernetes manifests.")


@app.callback()
def _group() -> None:
    """Render and check the Kubernetes manifests."""


@app.command()
def render(
    repository: Annotated[
        list[Path] | None,
        typer.Option(
            "--model-repository",
            "--repository",
            "-r",
            help="Folder of models; may be given more than once, the first one wins.",
        ),
    ] = None,
    with_models: Annotated[
        list[str] | None,
        typer.Option("--with", help="An optional model to serve as well; may be given more than once, '*' means all."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write a kustomize base into this folder instead of printing YAML.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help=f"Write nothing; fail if the folder ({BASE} by default) is out of date.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Turn the model repository into a RayService and what stands around it.

    Without --out the objects are printed, for `kubectl apply --server-side -n reelmesh -f -`.
    """
    from k8s.render import files, objects, outdated, stream, write
    from serving.repository.load import load_repository
    from serving.repository.served import with_optional

    found = load_repository([path.expanduser() for path in repository or Settings().model_repositories])
    loaded = with_optional(found, with_models or [])
    if check:
        _report(outdated(files(loaded), out or BASE), out or BASE, as_json=as_json)
    elif out is not None:
        texts = files(loaded)
        write(texts, out)
        _say({"written": [str(out / name) for name in texts]}, f"{len(texts)} files in {out}", as_json=as_json)
    elif as_json:
        typer.echo(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects(loaded)}, indent=2))
    else:
        typer.echo(stream(objects(loaded)), nl=False)


GpuType = Annotated[
    str, typer.Option(help="Which GPU: H200, L4, ..., or a value of the nodes' label nvidia.com/gpu.product.")
]
PartVersion = Annotated[
    int | None, typer.Option(min=1, help="Of the published part; by default the newest of --precision.")
]
PlanOptions = Annotated[
    list[str] | None, typer.Option(help="KEY=VALUE, as docs/tensorrt.md has them. May be given more than once.")
]


@app.command("job-tensorrt")
def job_tensorrt(
    model: Annotated[str, typer.Argument(help="Name of the model whose part is built.")],
    *,
    part: Annotated[str, typer.Option("--part", help="The part, such as unet.")],
    gpu_type: GpuType,
    precision: Annotated[str, typer.Option(help="fp32, fp16 or bf16.")] = "fp16",
    version: PartVersion = None,
    plan: PlanOptions = None,
    image: Annotated[
        str | None,
        typer.Option(help="Image with NVIDIA's TensorRT and Reelmesh; by default reelmesh:VERSION-tensorrt."),
    ] = None,
    claim: Annotated[str, typer.Option(help="PersistentVolumeClaim with the model repository.")] = "reelmesh-models",
    node_selector: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE of the nodes, instead of the GPU's product label.")
    ] = None,
    repository: Annotated[
        list[Path] | None,
        typer.Option("--model-repository", "--repository", "-r", help="Folder of models that has it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Render the Job that builds a part's TensorRT plan on the GPU that will run it.

    For `kubectl apply --server-side -n reelmesh -f -`.
    """
    from k8s.render import dump
    from k8s.tensorrt_job import Wanted, tensorrt_job

    folders = repository or Settings().model_repositories
    if not any((path.expanduser() / model).is_dir() for path in folders):
        where = ", ".join(map(str, folders))
        raise NotFound(
            f"no model {model[:128]!r} in {where}", field="model", fix="name a folder of them, or use -r DIR"
        )
    labels = dict(_label(text) for text in node_selector or ())
    wanted = Wanted(
        model=model,
        part=part,
        gpu_type=gpu_type,
        precision=precision,
        version=version,
        options=plan or (),
        image=image,
        claim=claim,
        node_labels=labels,
    )
    job = tensorrt_job(wanted)
    typer.echo(json.dumps(job, indent=2) if as_json else dump(job), nl=as_json)


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise BadInput(f"{text[:64]!r} is no label", field="--node-selector", fix="write KEY=VALUE")
    return key, value


def _report(stale: list[str], folder: Path, *, as_json: bool) -> None:
    _say(
        {"outdated": [str(folder / name) for name in stale]},
        "" if stale else f"{folder} is up to date",
        as_json=as_json,
    )
    if stale:
        raise Conflict(
            f"{', '.join(stale)} is not what the model repository renders",
            field=str(folder),
            fix=f"run `reelmesh k8s render --out {folder}`",
        )


def _say(value: dict[str, list[str]], text: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(value, indent=2))
    elif text:
        typer.echo(text)
