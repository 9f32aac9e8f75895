"""Measures the ways to a model: in process, Triton itself, the mesh over Triton, the mesh over a Ray replica.

The one invariant: all paths of a model are measured in turns, round by round, so that what disturbs the
machine disturbs them alike.
"""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import quantiles
from typing import Final, NamedTuple

from loadtests import payloads
from loadtests.bench import wire
from loadtests.bench.results import Row
from loadtests.payloads import Payload

CONCURRENCIES: Final = (1, 8, 32)
ROUNDS: Final = 2
WARM_UP_S: Final = 0.3

Measure = Callable[[int, float], Awaitable[wire.Sample]]


class Addresses(NamedTuple):
    """Where one server listens: ``http`` as URL, ``grpc`` as host:port; None where it is not known."""

    http: str | None
    grpc: str | None


class Way(NamedTuple):
    """One way to one model."""

    model: str
    name: str
    wire: str
    measure: Measure


def in_process(payload: Payload, file: Path) -> Way:
    """ONNX Runtime in this process: what no server can beat."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    inputs = payload.arrays()

    async def measure(concurrency: int, seconds: float) -> wire.Sample:
        return await wire.thread_loop(lambda: session.run(None, inputs), concurrency, seconds)

    return Way(payload.model, "in process", "call", measure)


def over_the_wire(payload: Payload, name: str, addresses: Addresses) -> list[Way]:
    """The server's HTTP and gRPC."""
    paths = []
    if addresses.http is not None:
        http = addresses.http

        async def by_http(concurrency: int, seconds: float) -> wire.Sample:
            return await wire.http_loop(http, payload, concurrency, seconds)

        paths.append(Way(payload.model, name, "HTTP", by_http))
    if addresses.grpc is not None:
        target = addresses.grpc

        async def by_grpc(concurrency: int, seconds: float) -> wire.Sample:
            return await wire.grpc_loop(target, payload, concurrency, seconds)

        paths.append(Way(payload.model, name, "gRPC", by_grpc))
    return paths


def paths_of(mesh: Addresses, triton: Addresses | None, repository: Path) -> list[Way]:
    """All ways, the baselines first."""
    mel, spoken = payloads.log_mel(), payloads.speech()
    file = repository / "log_mel" / "1" / "model.onnx"
    return [
        *([in_process(mel, file)] if file.exists() else []),
        *(over_the_wire(mel, "bare Triton", triton) if triton else []),
        *over_the_wire(mel, "mesh over Triton", mesh),
        *over_the_wire(spoken, "mesh over Ray", mesh),
    ]


async def measure_all(paths: Sequence[Way], seconds: float, told: Callable[[str], None]) -> list[Row]:
    """Every path at every concurrency, ``seconds`` seconds in :data:`ROUNDS` rounds each."""
    for path in paths:
        told(f"warming up: {path.model}, {path.name}, {path.wire}")
        await path.measure(2, WARM_UP_S)
    rows = []
    for concurrency in CONCURRENCIES:
        parts: dict[int, list[wire.Sample]] = {index: [] for index in range(len(paths))}
        for number in range(ROUNDS):
            for index, path in enumerate(paths):
                told(f"{path.model}, {path.name}, {path.wire}, {concurrency} at a time, round {number + 1}")
                parts[index].append(await path.measure(concurrency, seconds / ROUNDS))
        rows += [summary(paths[index], concurrency, samples) for index, samples in parts.items()]
    return sorted(rows, key=lambda row: row.model)


def summary(path: Way, concurrency: int, samples: Sequence[wire.Sample]) -> Row:
    """One row of the rounds together."""
    latencies = sorted(latency for sample in samples for latency in sample.latencies)
    cuts = quantiles(latencies, n=100, method="inclusive") if len(latencies) > 1 else latencies * 99
    return Row(
        model=path.model,
        path=path.name,
        wire=path.wire,
        concurrency=concurrency,
        requests=len(latencies),
        per_second=round(len(latencies) / sum(sample.seconds for sample in samples), 1),
        p50_ms=round(cuts[49] * 1000, 3),
        p99_ms=round(cuts[98] * 1000, 3),
    )
