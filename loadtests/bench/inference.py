"""Measures the ways to a model: in process, bare servers, the mesh over Triton, the mesh over a Ray replica.

The one invariant: all ways to a model are measured in turns, round by round, so that what disturbs the machine
disturbs them alike; a figure is the median of its rounds.
"""

from collections.abc import Callable, Iterable, Sequence
from statistics import median, quantiles
from typing import Final, NamedTuple

from loadtests import payloads
from loadtests.bench import h2load, wire
from loadtests.bench.models import Model
from loadtests.bench.results import BARE, IN_PROCESS, MESH_RAY, MESH_TRITON, PLAIN_RAY, Row
from loadtests.payloads import Payload

CONCURRENCIES: Final = (1, 16, 64)
ROUNDS: Final = 3
WARM_UP_S: Final = 1.0

Measure = Callable[[int, float], wire.Sample]


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


def in_process(model: Model) -> Way:
    """ONNX Runtime in this process: what no server can beat without batching."""
    session, inputs = model.session(), model.payload.arrays()

    def run() -> None:
        session.run(None, inputs)

    def measure(concurrency: int, seconds: float) -> wire.Sample:
        return wire.thread_loop(run, concurrency, seconds)

    return Way(model.name, IN_PROCESS, "call", measure)


def over_the_wire(
    payload: Payload, name: str, addresses: Addresses, wanted: bytes | None = None, model: str = ""
) -> list[Way]:
    """The server's HTTP and gRPC, after one answer of each was looked at; raises :class:`wire.WrongAnswer`.

    Args:
        payload: what is sent.
        name: of the way.
        addresses: where.
        wanted: the output's raw bytes; None takes any.
        model: what the row is called, if not as the payload's.
    """
    found = []
    if addresses.http is not None:
        found.append(("HTTP", *wire.http_request(addresses.http, payload)))
    if addresses.grpc is not None:
        found.append(("gRPC", *wire.grpc_request(addresses.grpc, payload)))
    for _, _, got in found:
        if wanted is not None:
            wire.check_output(payload, got, wanted)
    return [Way(model or payload.model, name, kind, _sender(request)) for kind, request, _ in found]


def over_plain_ray(payload: Payload, base_url: str, wanted: bytes) -> Way:
    """Plain Ray Serve's HTTP; raises :class:`wire.WrongAnswer`."""
    request, got = wire.plain_request(base_url + payload.model, payload)
    wire.check_output(payload, got, wanted)
    return Way(payload.model, PLAIN_RAY, "HTTP", _sender(request))


def _sender(request: wire.Request) -> Measure:
    def measure(concurrency: int, seconds: float) -> wire.Sample:
        return h2load.measure(request, concurrency, seconds)

    return measure


def ways_of_models(
    models: Iterable[Model], mesh: Addresses, triton: Addresses | None, plain: str | None, skipped: list[str]
) -> list[Way]:
    """All ways to the benchmark's models, the baselines first; what does not answer rightly is put into ``skipped``."""
    ways = []
    for model in models:
        wanted = model.session().run(None, model.payload.arrays())[0].tobytes()
        ways.append(in_process(model))
        if triton is not None:
            ways += over_the_wire(model.payload, BARE, triton, wanted)
        ways += over_the_wire(model.payload, MESH_TRITON, mesh, wanted)
        try:
            ways += over_the_wire(model.on_ray(), MESH_RAY, mesh, wanted, model.name)
        except (wire.WrongAnswer, OSError) as error:
            skipped.append(f"{model.name}, {MESH_RAY}: {error}")
        if plain is not None:
            ways.append(over_plain_ray(model.payload, plain, wanted))
    return ways


def ways_of_studio(mesh: Addresses) -> list[Way]:
    """Two models of the studio's own repository, at a mesh that runs."""
    return [
        *over_the_wire(payloads.log_mel(), MESH_TRITON, mesh),
        *over_the_wire(payloads.speech(), MESH_RAY, mesh),
    ]


def measure_all(
    ways: Sequence[Way],
    seconds: float,
    told: Callable[[str], None],
    concurrencies: Sequence[int] = CONCURRENCIES,
    rounds: int = ROUNDS,
    skipped: list[str] | None = None,
) -> list[Row]:
    """Every way at every concurrency, ``rounds`` rounds of ``seconds`` seconds each.

    A way that fails is put into ``skipped`` and measured no further; concurrencies that it was through with stay.
    """
    failed: list[str] = [] if skipped is None else skipped
    going = []
    for way in ways:
        told(f"warming up: {_named(way)}")
        if _taken(way, 2, WARM_UP_S, failed) is not None:
            going.append(way)
    rows = []
    for concurrency in concurrencies:
        samples: dict[Way, list[wire.Sample]] = {way: [] for way in going}
        for number in range(rounds):
            for way in list(samples):
                told(f"{_named(way)}, {concurrency} at a time, round {number + 1}")
                sample = _taken(way, concurrency, seconds, failed)
                if sample is None:
                    del samples[way]
                else:
                    samples[way].append(sample)
        going = list(samples)
        rows += [summary(way, concurrency, taken) for way, taken in samples.items()]
    return sorted(rows, key=lambda row: (row.model, row.wire, row.concurrency))


def _named(way: Way) -> str:
    return f"{way.model}, {way.name}, {way.wire}"


def _taken(way: Way, concurrency: int, seconds: float, failed: list[str]) -> wire.Sample | None:
    """One sample, or None and one more line of what failed."""
    try:
        return way.measure(concurrency, seconds)
    except (wire.WrongAnswer, OSError) as error:
        failed.append(f"{_named(way)}, {concurrency} at a time and more: {error}")
        return None


def summary(way: Way, concurrency: int, samples: Sequence[wire.Sample]) -> Row:
    """One row: medians of the rounds."""
    cuts = [
        quantiles(sample.latencies, n=100, method="inclusive") if len(sample.latencies) > 1 else sample.latencies * 99
        for sample in samples
    ]
    return Row(
        model=way.model,
        path=way.name,
        wire=way.wire,
        concurrency=concurrency,
        requests=sum(len(sample.latencies) for sample in samples),
        per_second=round(median(len(sample.latencies) / sample.seconds for sample in samples), 1),
        p50_ms=round(median(cut[49] for cut in cuts) * 1000, 3),
        p99_ms=round(median(cut[98] for cut in cuts) * 1000, 3),
    )
