"""`reelmesh models tiny`: model folders with tiny random weights, for trying the mesh without anybody's weights.

The one invariant: the folder it writes is a repository of its own; the one it reads stays as it is.
"""

from pathlib import Path
from typing import Annotated, Final

import typer

from serving.cli.output import print_json, stderr, stdout
from serving.errors import BadInput
from serving.settings import Settings

INTO: Final = Path("tiny_models")


def tiny(
    models: Annotated[list[str] | None, typer.Argument(metavar="[MODEL...]", help="Models to make small.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every model that has a tiny checkpoint.")] = False,
    into: Annotated[Path, typer.Option(help="Folder of models that is written.")] = INTO,
    repository: Annotated[
        list[Path] | None, typer.Option("--model-repository", "-r", help="Where the models' own folders are.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make tiny random-weight checkpoints in the real format, and model folders that serve them on the CPU.

    Checkpoints are deterministic and kept in the user's cache; making one again takes no time.
    """
    from rich.progress import Progress

    from serving.backends.ray.tiny import TINY
    from serving.backends.ray.tiny.build import tiny_model_folder
    from serving.repository.load import load_repository

    paths = repository or Settings().model_repositories
    known = load_repository([path.expanduser() for path in paths])
    names = sorted(TINY) if every else list(models or [])
    if not names:
        raise BadInput("no model is named", field="MODEL", fix=f"name some of {', '.join(sorted(TINY))}, or use --all")
    made = []
    with Progress(console=stderr(), transient=True, disable=not stderr().is_terminal) as progress:
        for name in progress.track(names, description="Making tiny checkpoints"):
            made.append(tiny_model_folder(known.get(name), into))
    if as_json:
        print_json({folder.name: str(folder.resolve()) for folder in made})
        return
    for folder in made:
        typer.echo(folder)
    places = " ".join(f"--model-repository {path}" for path in (into, *paths))
    stdout().print(f"[dim]Serve them:[/] reelmesh up {places}", soft_wrap=True)
