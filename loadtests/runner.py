"""Runs a locust file headless in a process of its own and reads its figures; called by loadtests.__main__ and
tests.

The one invariant: locust never runs in this process, since gevent patches the whole interpreter it is
imported into.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

FOLDER: Final = Path(__file__).parent
LOCUST_FILES: Final = {"oip": FOLDER / "oip_user.py", "jobs": FOLDER / "jobs_user.py"}
GRACE_S: Final = {"oip": 5, "jobs": 60}
"""How long requests, or jobs, under way at the end may take to finish."""


class Figures(BaseModel):
    """What one kind of request did; times in milliseconds."""

    model_config = ConfigDict(frozen=True)

    name: str
    requests: int
    failures: int
    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


class LoadReport(BaseModel):
    """The outcome of a run."""

    model_config = ConfigDict(frozen=True)

    kind: str
    host: str
    users: int
    seconds: float
    figures: list[Figures]
    problems: list[str] = []

    @property
    def failed(self) -> bool:
        """Whether anything went wrong, or nothing happened at all."""
        requests = sum(row.requests for row in self.figures)
        return requests == 0 or bool(self.problems) or any(row.failures for row in self.figures)


class LoadFailed(Exception):
    """locust itself did not run; the text is the end of what it said."""


def run_load(kind: str, host: str, users: int, seconds: float, models: str = "") -> LoadReport:
    """Run ``users`` users of one kind for ``seconds`` seconds.

    ``models`` restricts inference to some, comma-separated.

    Raises:
        LoadFailed: locust could not run, or hung.
    """
    with tempfile.TemporaryDirectory(prefix="reelmesh-load-") as folder:
        target = Path(folder) / "report.json"
        command = [
            *(sys.executable, "-m", "locust", "--locustfile", str(LOCUST_FILES[kind]), "--host", host),
            *("--headless", "--users", str(users), "--spawn-rate", str(users), "--run-time", f"{seconds:g}s"),
            *("--stop-timeout", str(GRACE_S[kind]), "--only-summary", "--loglevel", "WARNING"),
            *("--exit-code-on-error", "0", "--report", str(target), "--models", models),
        ]
        try:
            done = subprocess.run(
                command,
                cwd=FOLDER.parent,
                capture_output=True,
                text=True,
                timeout=seconds + GRACE_S[kind] + 60,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise LoadFailed(f"locust did not end within {error.timeout:.0f} s") from error
        if done.returncode or not target.exists():
            raise LoadFailed(f"locust ended with {done.returncode}: {(done.stderr or done.stdout)[-800:]}")
        written = json.loads(target.read_text(encoding="utf-8"))
    span_s = written["ended"] - written["started"]
    rows = [figures(entry, span_s) for entry in written["entries"]]
    problems = [" ".join(problem.split())[:300] for problem in written["problems"][:10]]
    return LoadReport(kind=kind, host=host, users=users, seconds=seconds, figures=rows, problems=problems)


def figures(entry: dict[str, Any], span_s: float) -> Figures:
    """One entry of locust's statistics, with its rate over the whole run."""
    longest = float(entry["max_response_time"] or 0.0)
    # Locust rounds the histogram's times, so that they can pass the longest one.
    times = {min(float(milliseconds), longest): count for milliseconds, count in entry["response_times"].items()}
    return Figures(
        name=entry["name"],
        requests=entry["num_requests"],
        failures=entry["num_failures"],
        per_second=entry["num_requests"] / max(span_s, 1e-3),
        p50_ms=percentile(times, 0.50),
        p95_ms=percentile(times, 0.95),
        p99_ms=percentile(times, 0.99),
        max_ms=longest,
    )


def percentile(times: dict[float, int], share: float) -> float:
    """The time that ``share`` of the requests did not pass, from a histogram of times; 0 if it is empty."""
    wanted, seen = share * sum(times.values()), 0
    for milliseconds in sorted(times):
        seen += times[milliseconds]
        if seen >= wanted:
            return milliseconds
    return 0.0
