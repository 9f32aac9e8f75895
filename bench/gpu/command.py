"""The command of `make bench-gpu`: arguments, the budget of time, one child per network, the report as it grows.

The one invariant: nothing here computes on the device, so a crash in a child costs that child's figures alone, and the
budget holds whatever a child does.

It ends with 0 when everything was had or skipped with a reason, 1 when something failed (what was had is kept), 2 for
arguments that make no sense, and 3 when a package or a CUDA device is missing.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.gpu import machine, report
from bench.gpu.children import CHILD, Child, Ended, Event, Late, end_with_parent, telling

RESULTS: Final = Path(__file__).resolve().parent.parent / "results"
BUDGET_S: Final = 540.0
SHARES: Final = {"sdxl": 24, "svd": 22, "cogvideox": 20, "whisper": 14, "vocoder": 8, "sharing": 12}
"""Parts of the time; what one leaves is the others'."""
GRACE: Final = 1.25
"""A child begins no figure after its part, and is ended after this many of them."""
RESERVE_S: Final = 8.0
"""Kept from the budget for ending children and writing."""
PER_FIGURE_S: Final = 1.5
TINY_PER_FIGURE_S: Final = 0.05
FAILED: Final = 1
LACKING: Final = 3


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        prog="bench/gpu",
        description="Measure full-size networks with random weights on one GPU.",
        epilog="Ends with 0; 1 when a figure failed; 2 for wrong arguments; 3 when torch 2.11, transformers, numpy or "
        "a CUDA device is missing.",
    )
    parser.add_argument("only", nargs="*", metavar="CASE", help=f"{', '.join(SHARES)}; all by default")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="the CPU needs --tiny")
    parser.add_argument("--tiny", action="store_true", help="tiny networks: checks the command, measures nothing")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S, help="seconds for everything (%(default)s)")
    parser.add_argument(
        "--json", type=Path, metavar="PATH", help="the report (bench/results/gpu.json, or gpu-tiny.json)"
    )
    asked = parser.parse_args(argv)
    unknown = sorted(set(asked.only) - set(SHARES))
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(SHARES)}")
    if asked.device == "cpu" and not asked.tiny:
        parser.error("--device cpu needs --tiny: networks of full size take hours on a CPU")
    if asked.budget_s <= RESERVE_S:
        parser.error(f"--budget-s must be more than {RESERVE_S:g}")
    asked.json = asked.json or RESULTS / ("gpu-tiny.json" if asked.tiny else "gpu.json")
    return asked


class Bench:
    """One run.

    Args:
        asked: the arguments.
    """

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.began = time.monotonic()
        self.until = self.began + asked.budget_s - RESERVE_S
        self.report: dict[str, Any] = {
            "schema": report.SCHEMA,
            "began": datetime.now(tz=UTC).isoformat(timespec="seconds"),
            "complete": False,
            "tiny": asked.tiny,
            "budget_s": asked.budget_s,
            "machine": machine.facts(asked.device),
            "networks": [],
        }

    def keep(self) -> None:
        """Write what there is."""
        self.report["took_s"] = time.monotonic() - self.began
        report.write(self.report, self.asked.json)

    def all(self) -> None:
        """Every case that was asked for, one after another, each with its part of the time that is left."""
        self.keep()
        waiting = [name for name in SHARES if not self.asked.only or name in self.asked.only]
        while waiting:
            name = waiting[0]
            left = max(self.until - time.monotonic(), 0.0)
            part = left * SHARES[name] / sum(SHARES[each] for each in waiting)
            ends = time.monotonic() + min(GRACE * part, left)
            if name == "sharing":
                self.sharing(ends)
            else:
                self.network(name, part, ends)
            waiting.pop(0)
        self.report["complete"] = not self.asked.only
        self.keep()

    def spec(self, **more: object) -> Event:
        """What every child is told."""
        return {"device": self.asked.device, "tiny": self.asked.tiny, **more}

    def network(self, name: str, part: float, ends: float) -> None:
        """One network, in a child of its own."""
        told: dict[str, Any] = {"name": name, "figures": [], "batches": []}
        self.report["networks"].append(told)
        per_figure = TINY_PER_FIGURE_S if self.asked.tiny else PER_FIGURE_S
        began = time.monotonic()
        step: dict[str, Any] | None = None
        with Child(self.spec(role="network", name=name, seconds=part, per_figure=per_figure)) as child:
            try:
                while (event := child.next(ends)) is not None:
                    step = event.get("step", step)
                    self.hear(told, event)
            except Late:
                self.hear(told, unfinished(step, f"not done when it was ended after {time.monotonic() - began:.0f} s"))
            except Ended as error:
                told["error"] = f"the process {error}"
        told["took_s"] = time.monotonic() - began
        if "error" in told:
            print(f"{told.get('title', name)}: {told['error']}", flush=True)
        self.keep()

    def hear(self, told: dict[str, Any], event: Event) -> None:
        """Take in what a child tells."""
        told |= event.get("facts", {})
        for kind, place in (("figure", "figures"), ("batch", "batches")):
            if kind in event:
                told[place].append(event[kind])
                self.keep()  # first: what was printed is in the report whatever ends this process
                print(report.line(told.get("title", told["name"]), event[kind]), flush=True)

    def sharing(self, ends: float) -> None:
        """Two processes on the device at once."""
        from bench.gpu.neighbours import share

        self.report["sharing"] = share(self.spec(), ends)
        print(*report.sharing_lines(self.report["sharing"]), sep="\n", flush=True)
        self.keep()


def unfinished(step: dict[str, Any] | None, reason: str) -> Event:
    """The figure that a child was at when its time was over, skipped; its first when it had not come so far."""
    known = dict(step or {"kind": "figure", "precision": "fp32", "mode": "eager", "batch": 0})
    return {known.pop("kind"): {**known, "skipped": reason}}


def child(text: str) -> int:
    """Be a child, with the role that its parent gave it."""
    spec, tell = json.loads(text), telling()
    if spec["role"] == "neighbour":
        from bench.gpu import neighbours

        neighbours.run(spec, tell)
        return 0
    from bench.gpu import worker

    end_with_parent()
    worker.run(spec, tell)
    return 0


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    if argv[:1] == [CHILD]:
        return child(argv[1])
    asked = arguments(argv)
    problem = machine.lacking(asked.device)
    if problem:
        print(f"bench/gpu: {problem}", file=sys.stderr)
        return LACKING
    print(report.row(report.HEAD), flush=True)
    bench = Bench(asked)
    bench.all()
    failed = report.failures(bench.report)
    print(f"{bench.report['took_s']:.0f} s; written: {asked.json}")
    if failed:
        print("failed:", *failed, sep="\n  ")
    return FAILED if failed else 0
