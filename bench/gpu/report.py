"""The report of a run: kept as JSON while it grows, printed as a table; used by bench.gpu's command.

The one invariant: the file is whole at any moment, so a run that is killed leaves all that it had.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

SCHEMA: Final = 1
"""Changes with the meaning of a key."""
WIDTHS: Final = (28, 6, 15, 5, 11, 11, 11, 11, 9)
WORDS: Final = 3
"""Columns that hold words, the first ones."""
HEAD: Final = ("network", "format", "run", "batch", "median ms", "items/s", "peak MiB", "estimate", "rms diff")

Figures = dict[str, Any]


def write(report: Figures, path: Path) -> None:
    """Replace the file by the report."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def failures(report: Figures) -> list[str]:
    """What was tried and failed, one line each; what was skipped with a reason is none."""
    found = [f"{told['name']}: {told['error']}" for told in report["networks"] if "error" in told]
    for told in report["networks"]:
        for figure in (*told["figures"], *told["batches"]):
            if "error" in figure:
                found.append(f"{told['name']} {named(figure)}: {figure['error']}")
            elif not figure.get("difference", {}).get("finite", True):
                found.append(f"{told['name']} {named(figure)}: its output is not finite")
    sharing = report.get("sharing", {})
    if "error" in sharing:
        found.append(f"sharing: {sharing['error']}")
    elif not sharing.get("breach", {}).get("refused", True):
        found.append("sharing: a process got more than its share")
    return found


def named(figure: Figures) -> str:
    """What a figure is of."""
    return " ".join(str(figure[key]) for key in ("precision", "mode", "batch") if key in figure)


def line(title: str, figure: Figures) -> str:
    """One figure as a row of the table."""
    start = (title, figure.get("precision", "bf16"), figure.get("mode", "batch"), str(figure["batch"]))
    reason = figure.get("skipped") or figure.get("error")
    if reason:
        return row(start) + f"  {'failed' if 'error' in figure else 'skipped'}: {reason}".replace("\n", " ")
    apart = figure.get("difference")
    numbers = (
        f"{figure['median_ms']:.2f}",
        f"{1000 * figure['batch'] / figure['median_ms']:.2f}",
        shown(figure.get("peak_mib")),
        shown(figure.get("estimate_mib")),
        "-" if apart is None else f"{apart['rms']:.1e}" if apart["finite"] else "not finite",
    )
    return row((*start, *numbers))


def shown(mib: float | None) -> str:
    """MiB, or a dash."""
    return "-" if mib is None else f"{mib:,.0f}"


def row(cells: tuple[str, ...]) -> str:
    """Cells side by side: words to the left, numbers to the right."""
    return " ".join(
        f"{cell:<{width}}" if number < WORDS else f"{cell:>{width}}"
        for number, (cell, width) in enumerate(zip(cells, WIDTHS, strict=False))
    )


def sharing_lines(told: Figures) -> Iterator[str]:
    """Two processes on one card, in sentences."""
    if "processes" not in told:
        yield f"two processes: {told.get('error') or told['skipped']}"
        return
    for each in told["processes"]:
        yield (
            f"{each['title']}, held to {each['share_mib']:,.0f} MiB: {each['alone_per_s']:.2f} items/s alone, "
            f"{each['together_per_s']:.2f} beside the other ({each['kept']:.0%})"
        )
    breach = told["breach"]
    if "skipped" in breach:
        yield f"asking for more than a share: {breach['skipped']}"
        return
    yield (
        f"asking for {breach['asked_mib']:,.0f} MiB more was {'refused' if breach['refused'] else 'NOT refused'}: "
        f"{breach['calls_after']} calls after it, and {breach['neighbour_calls']} of the other during it"
    )
