"""How the command line speaks: exit codes, one line per error, tables for people, JSON for machines.

The one invariant: results go to stdout, everything else to stderr, so ``reelmesh ... --json | jq`` always works.
"""

import json
import sys
from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from serving.errors import BadInput, MissingDependency, NotFound, ReelmeshError, Unavailable

if TYPE_CHECKING:
    from rich.console import Console


class ExitCode(IntEnum):
    """What the shell gets."""

    OK = 0
    FAILED = 1
    BAD_INPUT = 2
    MISSING = 3
    UNREACHABLE = 4
    INTERRUPTED = 130


EXIT_CODES: Mapping[ExitCode, str] = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "failed",
    ExitCode.BAD_INPUT: "bad usage or bad input",
    ExitCode.MISSING: "something is not installed",
    ExitCode.UNREACHABLE: "the mesh is not reachable or not ready",
    ExitCode.INTERRUPTED: "interrupted",
}
"""For ``--help`` and the documentation."""


def exit_code(error: BaseException) -> ExitCode:
    """The code an error ends the command with; decided by its class."""
    match error:
        case BadInput() | NotFound():
            return ExitCode.BAD_INPUT
        case MissingDependency():
            return ExitCode.MISSING
        case Unavailable():
            return ExitCode.UNREACHABLE
        case KeyboardInterrupt():
            return ExitCode.INTERRUPTED
    return ExitCode.FAILED


def print_error(error: ReelmeshError, *, as_json: bool = False) -> None:
    """One line on stderr: ``reelmesh: field: problem: fix``, or the same as JSON; a line more for each of its notes."""
    notes = getattr(error, "__notes__", [])
    if as_json:
        fields: dict[str, Any] = {"code": error.code, "field": error.field, "problem": error.problem, "fix": error.fix}
        fields |= {"also": notes} if notes else {}
        print(json.dumps({"error": fields}, ensure_ascii=False), file=sys.stderr)
        return
    for text in (str(error), *notes):
        print_line(text)


def print_line(text: str) -> None:
    """``reelmesh: text`` on stderr, on one line."""
    line = "reelmesh: " + " ".join(text.split())
    if sys.stderr.isatty():
        line = f"\033[31m{line}\033[0m"
    print(line, file=sys.stderr)


def print_note(text: str) -> None:
    """A remark on stderr."""
    print(text, file=sys.stderr)


def print_json(value: Any) -> None:  # noqa: ANN401  any JSON value
    """A JSON document on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def stdout() -> "Console":
    """Where tables go: plain text without colours when nobody is watching."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def stderr() -> "Console":
    """Where progress bars and notes go."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)
