"""`reelmesh k8s`: render the manifests, or say whether the rendered ones are up to date; plugged in by an entry point.

The one invariant: results go to stdout, and nothing talks to a cluster.
"""

import json
from pathlib import Path
from typing import Annotated, Final

import typer

from serving.errors import Conflict
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
