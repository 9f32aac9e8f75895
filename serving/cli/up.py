"""`reelmesh up`: start the mesh, say where it listens, run until a signal.

The one invariant: the addresses are printed only once they answer.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from serving.cli.mesh import Mesh, Report, running_mesh, wait_for_signal
from serving.cli.output import print_json, stderr, stdout
from serving.edge.ports import authority, reach
from serving.settings import Settings, with_values

Host = Annotated[str | None, typer.Option(help="Address to listen on; 0.0.0.0 for every one of this machine.")]
HttpPort = Annotated[int | None, typer.Option(min=0, max=65535, help="HTTP port; 0 picks a free one. (default: 8000)")]
GrpcPort = Annotated[int | None, typer.Option(min=0, max=65535, help="gRPC port; 0 picks a free one. (default: 8001)")]
MetricsPort = Annotated[
    int | None, typer.Option(min=0, max=65535, help="Metrics port; 0 picks a free one. (default: 8002)")
]
Repositories = Annotated[
    list[Path] | None, typer.Option("--model-repository", help="Folder of models; may be given more than once.")
]
WithModels = Annotated[
    list[str] | None,
    typer.Option("--with", help="An optional model to serve as well; may be given more than once, '*' means all."),
]
Keys = Annotated[
    Path | None, typer.Option(help="File of bearer keys; with it, other machines may be let in by --host.")
]
Home = Annotated[Path | None, typer.Option(help="Folder for jobs, artifacts and logs. (default: .reelmesh)")]


def up(  # noqa: PLR0917  one parameter per flag
    host: Host = None,
    http_port: HttpPort = None,
    grpc_port: GrpcPort = None,
    metrics_port: MetricsPort = None,
    model_repository: Repositories = None,
    with_models: WithModels = None,
    keys: Keys = None,
    home: Home = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the addresses as JSON once ready.")] = False,
) -> None:
    """Start the mesh on this machine and keep it running until Ctrl-C.

    Jobs that were running when it stopped go on where they were.
    """
    settings = settings_from(
        home=home,
        model_repositories=model_repository,
        edge={
            "host": host,
            "http_port": http_port,
            "grpc_port": grpc_port,
            "metrics_port": metrics_port,
            "keys_file": keys,
        },
        inference={"optional_models": with_models},
    )
    with progress_report() as report, running_mesh(settings, report) as mesh:
        report("ready", 1.0)
        _announce(mesh, as_json=as_json)
        wait_for_signal()
        stderr().print("Stopping: finishing what is in flight ...")


def settings_from(
    *,
    edge: Mapping[str, Any] | None = None,
    inference: Mapping[str, Any] | None = None,
    **values: Any,  # noqa: ANN401
) -> Settings:
    """Settings of the environment, with the flags that were given on top; None stands for one that was not."""
    base = Settings()
    groups = {
        "edge": with_values(base.edge, "edge", _given(edge or {})),
        "inference": with_values(base.inference, "inference", _given(inference or {})),
    }
    return base.model_copy(update=_given(values) | groups)


def _given(flags: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if value is not None}


@contextmanager
def progress_report() -> Iterator[Report]:
    """A progress bar on a terminal, plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield _line_report()
        return
    columns = (SpinnerColumn(), TextColumn("{task.description:<40}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr(), transient=True) as progress:
        task = progress.add_task("starting", total=1.0)

        def report(text: str, done: float) -> None:
            progress.update(task, description=text, completed=done)
            if done >= 1.0:
                progress.stop()

        yield report


def _line_report() -> Report:
    last = ""

    def report(text: str, _done: float) -> None:
        nonlocal last
        if text != last:
            print(f"... {text}", file=sys.stderr, flush=True)
            last = text

    return report


def addresses(mesh: Mesh) -> dict[str, str]:
    """Where the mesh is reached: ``http``, ``grpc``, ``metrics``."""
    edge = mesh.settings.edge
    return {
        "http": mesh.url,
        "grpc": authority(edge.host, edge.grpc_port),
        "metrics": f"http://{authority(edge.host, edge.metrics_port)}/metrics",
    }


def _announce(mesh: Mesh, *, as_json: bool) -> None:
    where = addresses(mesh)
    if as_json:
        print_json({**where, "ready_s": round(mesh.ready_s, 2), "home": str(mesh.settings.home)})
        sys.stdout.flush()
        return
    out = stdout()
    out.print(f"[bold green]Reelmesh is ready[/] after {mesh.ready_s:.1f} s")
    out.print(f"  Pages and jobs   {where['http']}/")
    out.print(f"  HTTP inference   {where['http']}/v2")
    out.print(f"  gRPC inference   {where['grpc']}")
    out.print(f"  Metrics          {where['metrics']}")
    out.print(f"  Jobs and results {mesh.settings.home}")
    out.print(f"  Keys             {reach(mesh.settings.edge)}")
    out.print("Ctrl-C stops it.")
