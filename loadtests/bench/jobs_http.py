"""Measures jobs over the wire, on a mesh that runs: status reads, and events to many watchers; used by loadtests.bench.

The one invariant: what a watcher is late by is counted from the time in the event itself, which is when its row was
written.
"""

import asyncio
import json
import time
import urllib.request
from collections import defaultdict
from statistics import median
from typing import Any, Final
from urllib.parse import urlsplit

from loadtests.bench import h2load
from loadtests.bench.results import Target
from loadtests.bench.wire import Request

WATCHERS: Final = 500
AT_ONCE: Final = 16
WATCH_S: Final = 120.0
READS_GOAL: Final = 1000.0
LATE_GOAL_MS: Final = 2000.0


def measure_over_http(host: str, job_id: str, seconds: float) -> list[Target]:
    """Status reads of a job that has ended, then :data:`WATCHERS` watchers of a fork of it that runs from the start.

    Args:
        host: ``http://host:port`` of the mesh.
        job_id: a completed job.
        seconds: of reading.

    Raises:
        WrongAnswer: an answer was an error.
        NotInstalled: there is no h2load.
    """
    sample = h2load.measure(Request(f"{host}/v1/jobs/{job_id}", b""), AT_ONCE, seconds)
    reads = len(sample.latencies) / sample.seconds
    first_stage = _json(f"{host}/v1/jobs/{job_id}")["stages"][0]["name"]
    fork = _json(f"{host}/v1/jobs/{job_id}/retry?from={first_stage}", post=True)
    late_ms = 1000 * median(asyncio.run(late(host, fork["id"], WATCHERS)))
    name = f"jobs by HTTP: an event reaches the last of {WATCHERS} watchers (SSE), p50, ms"
    return [
        Target(name="jobs by HTTP: status reads a second", value=reads, goal=READS_GOAL, at_least=True),
        Target(name=name, value=late_ms, goal=LATE_GOAL_MS, at_least=False),
    ]


def _json(url: str, *, post: bool = False) -> dict[str, Any]:
    request = urllib.request.Request(url, data=b"" if post else None)  # noqa: S310  the mesh that is measured
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        found: dict[str, Any] = json.load(answer)
        return found


async def late(host: str, job_id: str, watchers: int) -> list[float]:
    """For each event of a running job that all heard as it came, how many seconds the last of them heard it after."""
    heard: defaultdict[int, list[float]] = defaultdict(list)
    since = [0.0]
    everybody = asyncio.Barrier(watchers)

    async def watch() -> None:
        reader, writer = await asyncio.open_connection(urlsplit(host).hostname, urlsplit(host).port)
        writer.write(f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
        await reader.readuntil(b"retry:")
        await everybody.wait()
        since[0] = since[0] or time.time()
        async for line in reader:
            if line.startswith(b"data:"):
                event = json.loads(line.removeprefix(b"data:"))
                if event["at"] > since[0]:
                    heard[event["seq"]].append(time.time() - event["at"])
        writer.close()

    async with asyncio.timeout(WATCH_S), asyncio.TaskGroup() as group:
        for _ in range(watchers):
            group.create_task(watch())
    return [max(times) for times in heard.values() if len(times) == watchers]
