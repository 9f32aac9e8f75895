"""Runs h2load, nghttp2's load generator, for one request over HTTP/1.1 or gRPC, and reads its log; used by
bench.inference and bench.jobs_http.

It is written in C++ and one thread of it sends far more than a small machine can answer, which no client in Python
does. The one invariant: a measurement counts complete answers only, and raises where one was wrong.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from loadtests.bench.wire import Request, Sample, WrongAnswer

MAX_CONNECTIONS: Final = 8
"""Of a gRPC client; more requests in flight share them as streams. HTTP/1.1 has one connection for each."""
LIMIT_S: Final = 30.0
_SUCCESS: Final = 200
_COLUMNS: Final = 3


class NotInstalled(Exception):
    """There is no h2load; the text says how to get it."""


class Report(NamedTuple):
    """What h2load prints of one run; ``data_bytes`` are bodies of answers."""

    done: int
    wrong: int
    data_bytes: int


def program() -> str:
    """Where h2load is; raises :class:`NotInstalled`."""
    found = shutil.which("h2load")
    if found is None:
        raise NotInstalled("h2load is missing: apt-get install nghttp2-client, or scripts/bootstrap bench")
    return found


def measure(request: Request, concurrency: int, seconds: float) -> Sample:
    """Send the request with ``concurrency`` in flight, each as soon as an earlier one is answered.

    Raises:
        NotInstalled: there is no h2load.
        WrongAnswer: an answer was an error, or shorter than the request's right answer.
    """
    with tempfile.TemporaryDirectory(prefix="reelmesh-h2load-") as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        body.write_bytes(request.body)
        done = subprocess.run(
            command(request, concurrency, seconds, body, log),
            capture_output=True, text=True, timeout=seconds + LIMIT_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise WrongAnswer(f"h2load: {(done.stderr or done.stdout)[-300:]}")
        check(report(done.stdout), request)
        latencies = read_log(log.read_text(encoding="ascii") if log.exists() else "")
    if not latencies:
        raise WrongAnswer(f"{request.url}: no answer within {seconds:g} s")
    return Sample(latencies, seconds)


def command(request: Request, concurrency: int, seconds: float, body: Path, log: Path) -> list[str]:
    """The arguments."""
    connections = min(concurrency, MAX_CONNECTIONS) if request.grpc else concurrency
    words = [program(), "-t", "1", "-c", str(connections), "-D", f"{round(seconds * 1000)}ms", f"--log-file={log}"]
    words += ["-m", str(concurrency // connections)] if request.grpc else ["--h1"]
    for name, value in request.headers.items():
        words += ["-H", f"{name}: {value}"]
    # Without a body it is a GET.
    return [*words, *(["-d", str(body)] if request.body else []), request.url]


def report(printed: str) -> Report:
    """Read what h2load prints."""
    counts = re.search(r"(\d+) done, \d+ succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", printed)
    codes = re.search(r"status codes: \d+ 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", printed)
    data = re.search(r"\((\d+)\) data", printed)
    if counts is None or codes is None or data is None:
        raise WrongAnswer(f"h2load printed something else: {printed[-200:]}")
    wrong = sum(map(int, counts.groups()[1:])) + sum(map(int, codes.groups()))
    return Report(int(counts[1]), wrong, int(data[1]))


def check(report: Report, request: Request) -> None:
    """Raise :class:`WrongAnswer` unless every answer was a right one.

    gRPC tells errors behind the body, where h2load does not look: such an answer has no body, and is missed in the sum.
    """
    if report.wrong:
        raise WrongAnswer(f"{request.url}: {report.wrong} of {report.done} answers were errors")
    if report.data_bytes < report.done * request.answer_bytes:
        raise WrongAnswer(
            f"{request.url}: {report.done} answers have {report.data_bytes} bytes, not {request.answer_bytes} each"
        )


def read_log(text: str) -> list[float]:
    """Seconds of each request, from the log's lines of start, status and microseconds."""
    rows: list[Sequence[str]] = [line.split("\t") for line in text.splitlines()]
    return [int(row[2]) / 1e6 for row in rows if len(row) >= _COLUMNS and int(row[1]) == _SUCCESS]
