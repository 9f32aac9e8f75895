"""`reelmesh doctor`: look at this machine and say how to mend what is missing; the checks are in doctor_checks.

The one invariant: exit code 0 means that `reelmesh up` can start here, 3 that it cannot.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from serving.cli.output import ExitCode, print_json, stderr, stdout
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.cli.doctor_checks import Check


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Check everything the mesh needs on this machine; exit code 3 when something required is missing."""
    from serving.cli.doctor_checks import run_checks

    settings = Settings().resolved()
    with stderr().status("Looking at this machine"):
        checks = run_checks(settings)
    missing = [check for check in checks if check.state == "missing"]
    if as_json:
        print_json({"ready": not missing, "checks": [asdict(check) for check in checks]})
    else:
        _print_checks(checks)
        stderr().print(f"[red]{len(missing)} missing: the mesh cannot start here[/]" if missing else "[green]ready[/]")
    if missing:
        raise typer.Exit(ExitCode.MISSING)


def _print_checks(checks: "list[Check]") -> None:
    from rich.markup import escape
    from rich.table import Table

    marks = {"ok": "[green]✓[/]", "missing": "[red]✗[/]", "note": "[yellow]•[/]"}
    table = Table.grid(padding=(0, 2))
    for check in checks:
        table.add_row(marks[check.state], f"[bold]{check.name}[/]", escape(check.found))
        if check.fix:
            table.add_row("", "", f"[dim]→[/] {escape(check.fix)}")
    stdout().print(table)
