"""`reelmesh serve`: a drop-in for tritonserver: any Triton model repository behind three ports, without jobs.

The one invariant: a flag that tritonserver has too means the same here; what it would refuse at start is refused
before anything starts.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from serving.cli.home import throwaway_home
from serving.cli.mesh import Mesh, running_mesh, served_models, wait_for_signal
from serving.cli.output import print_json, stderr, stdout
from serving.cli.up import GrpcPort, Host, HttpPort, Keys, MetricsPort, addresses, progress_report, settings_from
from serving.edge.ports import reach
from serving.errors import BadInput
from serving.repository.served import ALL_MODELS
from serving.settings import InferenceSettings, Settings

if TYPE_CHECKING:
    from rich.table import Table

MOST_REPLICAS: Final = 256

Repositories = Annotated[
    list[Path] | None,
    typer.Option(
        "--model-repository",
        "--model-store",
        help="Folder of models, as Triton wants it; may be given more than once, the first one wins.",
    ),
]
ControlMode = Annotated[
    Literal["none", "explicit", "poll"] | None,
    typer.Option(
        help="none: all models at start; explicit: by load and unload calls; poll: as the folders change. "
        "(default: none)"
    ),
]
LoadModels = Annotated[
    list[str] | None,
    typer.Option(
        "--load-model", help="With explicit control: a model to load at start, * for all; may be given more than once."
    ),
]
UseTriton = Annotated[
    Literal["auto", "off"] | None,
    typer.Option(help="off: Ray replicas run the ONNX and Python models, and Triton is not started. (default: auto)"),
]
Replicas = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODEL=N",
        help="At least N replicas of what serves the model: a Triton replica holds all Triton models, a Ray replica "
        "all of its group.",
    ),
]
ExitTimeout = Annotated[
    float | None,
    typer.Option(
        "--exit-timeout-secs", min=0, help="How long requests in flight may take once it is stopped. (default: 30)"
    ),
]
PollSeconds = Annotated[
    float | None,
    typer.Option(
        "--repository-poll-secs", min=0.1, help="With poll: seconds between looks at the folders. (default: 15)"
    ),
]
Home = Annotated[
    Path | None,
    typer.Option(help="Folder for logs and what replicas write. (default: one in the cache, removed on exit)"),
]


def serve(  # noqa: PLR0917  one parameter per flag
    model_repository: Repositories = None,
    host: Host = None,
    http_port: HttpPort = None,
    grpc_port: GrpcPort = None,
    metrics_port: MetricsPort = None,
    model_control_mode: ControlMode = None,
    load_model: LoadModels = None,
    triton: UseTriton = None,
    replicas: Replicas = None,
    exit_timeout_secs: ExitTimeout = None,
    repository_poll_secs: PollSeconds = None,
    keys: Keys = None,
    home: Home = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print models and addresses as JSON once ready.")] = False,
) -> None:
    """Serve a Triton model repository until Ctrl-C or SIGTERM, by Triton and Ray replicas behind one address."""
    inference = {
        "model_control_mode": model_control_mode,
        "load_models": load_model,
        "triton": triton,
        "replicas": replica_counts(replicas) if replicas else None,
        "exit_timeout_s": exit_timeout_secs,
        "repository_poll_s": repository_poll_secs,
    }
    with throwaway_home(home or _home_of_settings()) as folder:
        settings = settings_from(
            home=folder,
            model_repositories=model_repository,
            edge={
                "host": host,
                "http_port": http_port,
                "grpc_port": grpc_port,
                "metrics_port": metrics_port,
                "keys_file": keys,
            },
            inference=inference,
        )
        check_flags(settings.inference)
        with progress_report() as report, running_mesh(settings, report, jobs=False) as mesh:
            report("ready", 1.0)
            _announce(mesh, as_json=as_json)
            wait_for_signal()
            stderr().print("Stopping: finishing what is in flight ...")


def _home_of_settings() -> Path | None:
    settings = Settings()
    return settings.home if "home" in settings.model_fields_set else None


def replica_counts(given: list[str]) -> dict[str, int]:
    """``["mlp=2"]`` as ``{"mlp": 2}``; raises :class:`BadInput` for anything else."""
    counts: dict[str, int] = {}
    for text in given:
        name, equals, number = text.rpartition("=")
        if not (equals and name and number.isascii() and number.isdigit() and 1 <= int(number[:9]) <= MOST_REPLICAS):
            fix = f"write MODEL=N with N from 1 to {MOST_REPLICAS}"
            raise BadInput(f"{text[:128]!r} is no number of replicas", field="--replicas", fix=fix)
        counts[name] = int(number)
    return counts


def check_flags(inference: InferenceSettings) -> None:
    """Raise :class:`BadInput` for flags that do not go together, as tritonserver does."""
    if inference.load_models and inference.model_control_mode != "explicit":
        problem = "use of '--load-model' requires setting '--model-control-mode=explicit' as well"
        raise BadInput(problem, field="--load-model", fix="add --model-control-mode explicit, or leave it out")
    if ALL_MODELS in inference.load_models and len(inference.load_models) > 1:
        problem = f"'{ALL_MODELS}' is all models already, and no pattern"
        raise BadInput(problem, field="--load-model", fix="give it as the only --load-model")


def _announce(mesh: Mesh, *, as_json: bool) -> None:
    where, models = addresses(mesh), served_models()
    if as_json:
        print_json({**where, "ready_s": round(mesh.ready_s, 2), "home": str(mesh.settings.home), "models": models})
        sys.stdout.flush()
        return
    out = stdout()
    out.print(_table(models))
    out.print(f"[bold green]Reelmesh is ready[/] after {mesh.ready_s:.1f} s")
    out.print(f"  HTTP    {where['http']}/v2")
    out.print(f"  gRPC    {where['grpc']}")
    out.print(f"  Metrics {where['metrics']}")
    out.print(f"  Logs    {mesh.settings.home}")
    out.print(f"  Keys    {reach(mesh.settings.edge)}")
    out.print("Ctrl-C stops it.")


def _table(models: list[dict[str, Any]]) -> "Table":
    """As tritonserver prints it, and what serves each model."""
    from rich.box import ASCII
    from rich.markup import escape
    from rich.table import Table

    table = Table("Model", "Version", "Status", "Served by", box=ASCII)
    for row in models:
        status = row["state"] + (f": {row['reason']}" if row["reason"] else "")
        by = row["served_by"] + (f" x{row['replicas']}" if row["replicas"] > 1 else "")
        table.add_row(escape(row["name"]), row["version"], escape(status), escape(by))
    return table
