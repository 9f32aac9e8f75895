"""`reelmesh`: the root of the command line; the script of that name calls main().

The one invariant: a sub-command's module is imported only when that sub-command runs, so that help stays under half a
second and a broken plug-in breaks nothing else. Errors become one line and an exit code here and nowhere else.
"""

import functools
import importlib
import importlib.metadata
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer
from typer.core import TyperGroup
from typer.main import get_command

from serving.cli.output import EXIT_CODES, ExitCode, exit_code, print_error, print_line
from serving.errors import MissingDependency, ReelmeshError

if TYPE_CHECKING:
    from typer._click.core import Context  # the base of typer.Context, which Typer's own signatures name

PLUGIN_GROUP: Final = "reelmesh.commands"
"""Entry points that add sub-commands from the packages above ``serving``."""


class _Lazy(NamedTuple):
    """A sub-command that is imported when it is needed: ``module:attribute`` and its line in the help."""

    target: str
    help: str


COMMANDS: Final = {
    "demo": _Lazy("serving.cli.demo:demo", "Start the mesh, make a podcast video, check it, stop."),
    "up": _Lazy("serving.cli.up:up", "Start the mesh on this machine and keep it running."),
    "serve": _Lazy("serving.cli.serve:serve", "Serve a Triton model repository: a drop-in for tritonserver."),
    "submit": _Lazy("serving.cli.jobs:submit", "Submit a job, watch it, download its files."),
    "jobs": _Lazy("serving.cli.jobs:app", "Submit, list, show, watch, cancel, retry and edit jobs."),
    "models": _Lazy("serving.cli.models:app", "List, show and lint models; pull, verify and remove weights."),
    "plan": _Lazy("serving.cli.plan:plan", "Show which replica would run on which card."),
    "artifacts": _Lazy("serving.cli.artifacts:app", "Remove expired files, show what made a file."),
    "keys": _Lazy("serving.cli.keys:app", "Make, list and remove the keys clients bring."),
    "doctor": _Lazy("serving.cli.doctor:doctor", "Check this machine and say how to mend what is missing."),
}

PLUGIN_HELP: Final = {
    "optimize": "Export a model to ONNX, check parity, publish a version.",
    "k8s": "Render and check the Kubernetes manifests.",
}
"""Lines in the help for known plug-ins, which are not imported for it."""


class LazyGroup(TyperGroup):
    """Lists its sub-commands by stand-ins and imports the one that runs."""

    def list_commands(self, ctx: "Context") -> list[str]:
        """Names in the order of the help."""
        return [*COMMANDS, *(name for name in _plugins() if name not in COMMANDS)]

    def get_command(self, ctx: "Context", cmd_name: str) -> Any:  # noqa: ANN401  Typer's own private class
        """A stand-in that has a name and a help line."""
        lazy = COMMANDS.get(cmd_name) or _plugins().get(cmd_name)
        return None if lazy is None else _stand_in(cmd_name, lazy)

    def resolve_command(self, ctx: "Context", args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The real sub-command."""
        self.commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        name, command, rest = super().resolve_command(ctx, args)
        lazy = COMMANDS.get(name or "") or _plugins().get(name or "")
        return name, command if lazy is None else _imported(name or "", lazy), rest


@functools.cache
def _plugins() -> dict[str, _Lazy]:
    points = importlib.metadata.entry_points(group=PLUGIN_GROUP)
    return {point.name: _Lazy(point.value, PLUGIN_HELP.get(point.name, f"From {point.module}.")) for point in points}


def _stand_in(name: str, lazy: _Lazy) -> Any:  # noqa: ANN401
    group = typer.Typer(add_completion=False)
    group.command(name, help=lazy.help)(lambda: None)
    return get_command(group)


def _imported(name: str, lazy: _Lazy) -> Any:  # noqa: ANN401
    module, _, attribute = lazy.target.partition(":")
    try:
        target = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        fix = "pip install 'reelmesh[export]'" if name == "optimize" else "pip install reelmesh"
        raise MissingDependency(f"`reelmesh {name}` needs {error.name}", fix=fix) from error
    if not isinstance(target, typer.Typer):
        single = typer.Typer(add_completion=False)
        single.command(name)(target)
        target = single
    return get_command(target)


app = typer.Typer(
    cls=LazyGroup,
    name="reelmesh",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: " + ", ".join(f"{code.value} {text}" for code, text in EXIT_CODES.items()) + ".",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"reelmesh {importlib.metadata.version('reelmesh')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A model-serving mesh for AI film studios: Triton and Ray Serve behind one address.

    Settings come from REELMESH_* variables, for example REELMESH_EDGE__HTTP_PORT=9000.
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors are printed."""
    as_json = "--json" in arguments
    try:
        result = get_command(app).main(args=list(arguments), prog_name="reelmesh", standalone_mode=False)
    except ReelmeshError as error:
        print_error(error, as_json=as_json)
        return exit_code(error)
    except typer.TyperException as error:
        return _usage_error(error)
    except (KeyboardInterrupt, typer.Abort):
        print_line("interrupted")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except Exception as error:
        return _unexpected(error, as_json=as_json)
    return result if isinstance(result, int) else ExitCode.OK


def _usage_error(error: typer.TyperException) -> int:
    """Typer's own complaint on one line, or the help where nothing was asked."""
    context = getattr(error, "ctx", None)
    message = error.format_message()
    if not message.strip() or "\n" in message.strip():
        print(message.strip(), file=sys.stderr)
        return ExitCode.BAD_INPUT
    path = context.command_path if context is not None else "reelmesh"
    instead = _instead_of(getattr(error, "option_name", None)) if path == "reelmesh serve" else None
    if instead is not None:
        print_line(instead)
        return ExitCode.BAD_INPUT
    print_line(f"{message.rstrip('.')}: see `{path} --help`")
    return ExitCode.BAD_INPUT


def _instead_of(flag: str | None) -> str | None:
    """What to say to a flag that only tritonserver has."""
    from serving.cli.tritonserver_flags import INSTEAD

    instead = INSTEAD.get(flag or "")
    return None if instead is None else f"{flag} is tritonserver's, and no flag of `reelmesh serve`: {instead}"


def _unexpected(error: Exception, *, as_json: bool) -> int:
    """A wrong REELMESH_* variable is the caller's to mend; anything else is a bug, shown with its traceback."""
    if type(error).__name__ == "ValidationError" and getattr(error, "title", "") == "Settings":
        from serving.settings import settings_problem

        problem = settings_problem(error)
        print_error(problem, as_json=as_json)
        return exit_code(problem)
    traceback.print_exc()
    print_line(f"this is a bug: {type(error).__name__}: {error}")
    return ExitCode.FAILED


def main() -> None:
    """Entry point of the script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
