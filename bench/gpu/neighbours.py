"""Two networks in two processes on one card, each held to its share of the memory; run by bench.gpu's command.

The one invariant: a share is enforced, by torch's allocator on CUDA (`set_per_process_memory_fraction`) and by the
kernel on a CPU (RLIMIT_AS), so who asks for more is refused in its own process.
"""

import gc
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from bench.gpu.children import Child, Ended, Event, Late, orders
from bench.gpu.measure import Run, timed_ms
from bench.gpu.memory import MIB
from bench.gpu.networks import network
from bench.gpu.precision import inputs_of, prepared
from bench.gpu.worker import TOLD_OF_ERROR, Tell, device_of, estimate_mib

PAIR: Final = ("sdxl", "whisper")
"""A picture in the making beside a recording that is transcribed, both in bfloat16."""
HEADROOM: Final = 1.5
"""A share is the estimate times it, and :data:`WORKSPACES_MIB`."""
WORKSPACES_MIB: Final = 1024
"""For what the estimate leaves out."""
OF_FREE: Final = 0.9
"""Part of a card's free memory that one allocation can surely have."""
PAGES: Final = Path("/proc/self/statm")
ROUND_S: Final = 4.0
TINY_ROUND_S: Final = 0.5


def limit(share_mib: float, device: torch.device) -> None:
    """Refuse this process more than its share from now on; on a CPU, more than that beyond what it has."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        whole = torch.cuda.get_device_properties(device).total_memory / MIB
        torch.cuda.set_per_process_memory_fraction(min(share_mib / whole, 1.0), device)
        return
    pages = int(PAGES.read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + int(share_mib * MIB)
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def calls(call: Run, device: torch.device, seconds: float) -> Event:
    """As many calls as fit into so many seconds: how many, and the milliseconds of each in the middle."""
    times: list[float] = []
    until = time.monotonic() + seconds
    began = time.monotonic()
    while not times or time.monotonic() < until:
        times.append(timed_ms(call, device))
    took = time.monotonic() - began
    return {"calls": len(times), "seconds": took, "median_ms": sorted(times)[len(times) // 2]}


def breach(share_mib: float, device: torch.device) -> Event:
    """Ask for more than the share: whether that was refused, and how; what the whole card had free is told beside.

    Twice the share, or what the card has free where that is less, since a full card refuses anybody.
    """
    free = torch.cuda.mem_get_info(device)[0] / MIB if device.type == "cuda" else None
    asked_mib = 2 * share_mib if free is None else min(2 * share_mib, OF_FREE * free)
    if asked_mib <= share_mib:
        return {"asked_mib": asked_mib, "free_on_card_mib": free, "skipped": "the card has no more free than a share"}
    told: Event = {"asked_mib": asked_mib, "free_on_card_mib": free, "refused": False}
    try:
        more = torch.zeros(int(asked_mib * MIB), dtype=torch.uint8, device=device)
    except RuntimeError as error:
        return told | {"refused": True, "error": f"{type(error).__name__}: {error}"[:TOLD_OF_ERROR]}
    del more
    return told


def run(spec: Event, tell: Tell) -> None:
    """In a child: load a network, keep to a share, and do what the parent orders: `calls` or `breach`."""
    device = device_of(spec)
    subject = network(spec["name"], tiny=spec["tiny"])
    with torch.no_grad():
        made = prepared(subject, "bf16", device)
        inputs = inputs_of(subject, subject.batch, "bf16", device)
        share_mib = HEADROOM * estimate_mib(subject, made, inputs) + WORKSPACES_MIB
        call = partial(made, *inputs)
        call()
        limit(share_mib, device)
        tell({"share_mib": share_mib, "title": subject.title, "batch": subject.batch})
        for order in orders():
            tell(breach(share_mib, device) if order["do"] == "breach" else calls(call, device, order["seconds"]))


def heard(child: Child, deadline: float) -> Event:
    """What a child answers.

    Raises:
        Late: it answered not in time.
        Ended: it is gone.
    """
    event = child.next(deadline)
    if event is None:
        raise Ended("ended before its work was done")
    return event


def side(name: str, ready: Event, alone: Event, together: Event) -> Event:
    """One process's figures."""
    speeds = [ready["batch"] * told["calls"] / told["seconds"] for told in (alone, together)]
    return {
        "name": name,
        "title": ready["title"],
        "share_mib": ready["share_mib"],
        "alone_per_s": speeds[0],
        "together_per_s": speeds[1],
        "kept": speeds[1] / speeds[0],
        "alone_ms": alone["median_ms"],
        "together_ms": together["median_ms"],
    }


def together(children: Sequence[Child], spec: Event, deadline: float) -> Event:
    """Each alone, both at once, then the second beyond its share while the first goes on.

    Throughput is in items a second, of the network's batch. What the first process did during the breach, and the
    second after it, are told beside.
    """
    seconds = TINY_ROUND_S if spec["tiny"] else ROUND_S
    work = {"do": "calls", "seconds": seconds}
    ready = [heard(child, deadline) for child in children]
    alone = []
    for child in children:
        child.ask(work)
        alone.append(heard(child, deadline))
    for child in children:
        child.ask(work)
    both = [heard(child, deadline) for child in children]
    first, second = children
    first.ask(work)
    second.ask({"do": "breach"})
    second.ask({"do": "calls", "seconds": seconds / 2})
    refused, after = heard(second, deadline), heard(second, deadline)
    during = heard(first, deadline)
    rows = zip(PAIR, ready, alone, both, strict=True)
    return {
        "processes": [side(*row) for row in rows],
        "breach": refused | {"calls_after": after["calls"], "neighbour_calls": during["calls"]},
    }


def share(spec: Event, deadline: float) -> Event:
    """Start both processes and measure them: the figures, or the error that there was."""
    try:
        with ExitStack() as stack:
            children = [stack.enter_context(Child(one)) for one in roles(spec)]
            return together(children, spec, deadline)
    except Late:
        return {"error": "the time was over"}
    except Ended as error:
        return {"error": f"a process {error}"}


def roles(spec: Event) -> Iterator[dict[str, Any]]:
    """What each of the two processes shall do."""
    for name in PAIR:
        yield spec | {"role": "neighbour", "name": name}
