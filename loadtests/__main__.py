"""`python -m loadtests oip|jobs`: puts load on a running mesh and prints what it did.

The one invariant: exit code 0 means that there were answers and every one was right; 1 that some were wrong,
2 bad usage, 3 that locust is not installed, 4 that no mesh answers.
"""

import argparse
import importlib.util
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from loadtests.payloads import WEIGHTS
from loadtests.runner import LOCUST_FILES, LoadFailed, LoadReport, run_load

MAX_USERS: Final = 2000
MAX_SECONDS: Final = 24 * 3600.0
MISSING: Final = 3
UNREACHABLE: Final = 4


def main(arguments: list[str] | None = None) -> int:
    """Run and return the exit code."""
    options = parser().parse_args(arguments)
    host = options.host.rstrip("/")
    problem = unreachable(host)
    if problem:
        print(f"loadtests: --host: {problem}: start a mesh with `reelmesh up`", file=sys.stderr)
        return UNREACHABLE
    if importlib.util.find_spec("locust") is None:
        print("loadtests: locust is not installed: pip install -e '.[loadtest]'", file=sys.stderr)
        return MISSING
    Console(stderr=True).print(f"{options.users} users for {options.seconds:g} s on {host} ...", highlight=False)
    try:
        report = run_load(options.kind, host, options.users, options.seconds, options.models)
    except LoadFailed as error:
        print(f"loadtests: {error}", file=sys.stderr)
        return 1
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    show(report)
    return 1 if report.failed else 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m loadtests", description="Put load on a running mesh.")
    made.add_argument("kind", choices=sorted(LOCUST_FILES), help="oip: inference by HTTP; jobs: subtitle jobs")
    made.add_argument("--host", default="http://127.0.0.1:8000", help="address of the mesh (default: %(default)s)")
    made.add_argument("--users", type=bounded(int, 1, MAX_USERS), default=4, help="clients at a time (default: 4)")
    made.add_argument("--seconds", type=bounded(float, 1, MAX_SECONDS), default=10.0, help="how long (default: 10)")
    made.add_argument("--models", type=models, default="", help=f"oip: only some of {', '.join(WEIGHTS)}")
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    return made


def bounded(kind: type[int] | type[float], low: float, high: float) -> Callable[[str], float]:
    """What reads a number within bounds, for argparse, which turns its errors into one line."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g}")
        return value

    return read


def models(text: str) -> str:
    """Checks the names, for argparse."""
    unknown = {name.strip() for name in text.split(",") if text} - set(WEIGHTS)
    if unknown:
        raise argparse.ArgumentTypeError(f"no payload for {sorted(unknown)}: use {', '.join(WEIGHTS)}")
    return text


def unreachable(host: str) -> str:
    """Why no mesh answers at ``host``; empty if one does."""
    if not host.startswith(("http://", "https://")):
        return f"{host!r} is no http address"
    try:
        with urllib.request.urlopen(f"{host}/v2/health/ready", timeout=5):  # noqa: S310  http, as checked
            return ""
    except urllib.error.HTTPError as error:
        return f"{host} is not ready ({error.code})"
    except (OSError, ValueError) as error:
        return f"nothing answers at {host} ({getattr(error, 'reason', error)})"


def show(report: LoadReport) -> None:
    """Print the figures."""
    table = Table("request", "sent", "wrong", "per second", "p50", "p95", "p99", "longest")
    for row in report.figures:
        times = (f"{value:,.0f} ms" for value in (row.p50_ms, row.p95_ms, row.p99_ms, row.max_ms))
        wrong = f"[red]{row.failures}[/]" if row.failures else "0"
        table.add_row(row.name, f"{row.requests:,}", wrong, f"{row.per_second:,.1f}", *times)
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(table)
    for problem in report.problems:
        console.print(f"wrong: {problem}", markup=False, highlight=False)
    if not report.figures:
        console.print("no request was answered", style="red")


if __name__ == "__main__":
    sys.exit(main())
