"""Times, memory and differences of one call; used by bench.gpu's workers.

The one invariant: a time is that of one call from Python until the device is done, the way a request sees it, and the
device is idle before it begins.
"""

import statistics
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import torch
from torch import Tensor

from bench.gpu.memory import MIB

Run = Callable[[], Tensor]
LEAST_RUNS: Final = 3
MOST_RUNS: Final = 50
WARM_UPS: Final = 1
"""Beside the call whose output and memory were observed before."""
GRAPH_WARM_UPS: Final = 3
"""Calls on the side stream before a capture, so that libraries have their handles and workspaces."""


class Timing(NamedTuple):
    """Milliseconds per call, over so many."""

    median_ms: float
    least_ms: float
    runs: int


def synchronize(device: torch.device) -> None:
    """Wait until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed_ms(run: Run, device: torch.device) -> float:
    """One call."""
    synchronize(device)
    began = time.perf_counter()
    run()
    synchronize(device)
    return 1000 * (time.perf_counter() - began)


def timing(run: Run, device: torch.device, seconds: float) -> Timing:
    """The median of calls that together take about so many seconds, after one that does not count."""
    for _ in range(WARM_UPS):
        last = timed_ms(run, device)
    runs = min(MOST_RUNS, max(LEAST_RUNS, int(1000 * seconds / max(last, 1e-3))))
    times = [timed_ms(run, device) for _ in range(runs)]
    return Timing(median_ms=statistics.median(times), least_ms=min(times), runs=runs)


def observed(run: Run, device: torch.device) -> tuple[Tensor, float | None]:
    """What one call gives, float32 on the CPU, and the most MiB of torch's allocator during it, on CUDA alone."""
    if device.type != "cuda":
        return run().float(), None
    synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    out = run()
    synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) / MIB
    return out.float().cpu(), peak


def captured(run: Run, device: torch.device) -> Run:
    """The call as a CUDA graph, whose replay fills the same output.

    Raises:
        RuntimeError: the call does what cannot be captured, as a copy from the device.
    """
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(GRAPH_WARM_UPS):
            run()
    torch.cuda.current_stream(device).wait_stream(side)
    synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run()

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay


class Difference(NamedTuple):
    """How far an output is from the reference, as parts of the reference's scale.

    Args:
        worst: the largest difference over the largest magnitude.
        rms: the root mean square of the differences over that of the reference.
        finite: whether there is neither infinity nor NaN.
    """

    worst: float
    rms: float
    finite: bool


def difference(out: Tensor, reference: Tensor) -> Difference:
    """Compare two float32 tensors of one shape on the CPU; infinities and NaN count as 0 beside the flag."""
    finite = bool(out.isfinite().all())
    apart = (out.nan_to_num(0.0, 0.0, 0.0) - reference).abs()
    worst = apart.max() / reference.abs().max()
    rms = apart.square().mean().sqrt() / reference.square().mean().sqrt()
    return Difference(worst=float(worst), rms=float(rms), finite=finite)
