"""What stands on the page, in its order, for Markdown and HTML alike; pure, used by optimize.page.write.

The one invariant: both forms are made of this and of nothing else, so that they say the same.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from optimize.page import figures
from optimize.page.charts import Bars, Point, Points
from optimize.report import Report
from optimize.report_text import RUNNERS, milliseconds, quality_value, size

SUMMARY = ("part", "runs as", "version", "size", "parity, worst", "quality", "times faster", "peak memory")
"""Heads of the first table, in the order of :func:`optimize.page.figures.summary`."""


class Table(NamedTuple):
    """A table with its heading; no rows: nothing is shown."""

    heading: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Section(NamedTuple):
    """All of one part: key for links and files, title, facts in words, plots by key, tables."""

    key: str
    title: str
    facts: Sequence[str]
    plots: Sequence[tuple[str, Bars | Points]]
    tables: Sequence[Table]


class Content(NamedTuple):
    """The page: ``empty`` is what it says where nothing is published."""

    title: str
    lead: str
    empty: str
    summary: Table
    plots: Sequence[tuple[str, Bars | Points]]
    sections: Sequence[Section]


def content(reports: Sequence[Report], repositories: Sequence[Path]) -> Content:
    """Of the newest reports, sorted as :func:`optimize.page.collect.collect` gives them."""
    parts = figures.parts_of(reports)
    places = ", ".join(str(path) for path in repositories) or "the model repository"
    empty = "" if parts else f"No part is published in {places}: run reelmesh optimize MODEL."
    shown: list[tuple[str, Bars | Points]] = []
    speeds = figures.speeds(parts)
    shown += [(f"speed-{index}" if index > 1 else "speed", plot) for index, plot in enumerate(speeds, 1)]
    shown += [("size", figures.sizes(parts)), ("memory", figures.memories(parts))]
    return Content(
        title="Exported models and parts",
        lead=lead(reports, len(parts)),
        empty=empty,
        summary=Table("All", SUMMARY, [list(figures.summary(report).values()) for report in reports]),
        plots=[(key, plot) for key, plot in shown if isinstance(plot, Points) or plot.groups],
        sections=[section(part) for part in parts],
    )


def lead(reports: Sequence[Report], parts: int) -> str:
    """How many there are, and where they were timed."""
    if not reports:
        return ""
    machines = "; ".join(sorted({figures.where(report) for report in reports}))
    counted = f"{parts} {'model or part' if parts == 1 else 'models and parts'}, {len(reports)} published"
    return f"{counted} in all precisions. Times are medians, warm, measured in turns in one run on: {machines}."


def section(part: Sequence[Report]) -> Section:
    """One part in all its precisions."""
    key = slug(part[0])
    plots: list[tuple[str, Bars | Points]] = []
    if any(report.timing for report in part):
        plots.append((key, figures.times(part)))
    plots += [(f"{key}-int8", trials_plot(report)) for report in part if len(report.trials) > 1]
    return Section(key, part[0].title, [facts(report) for report in part], plots, tables(part))


def slug(report: Report) -> str:
    """For links and file names: letters, digits and dashes."""
    name = f"{report.model}-{report.part}" if report.part else report.model
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def facts(report: Report) -> str:
    """What one version is and was made with, in a sentence or two."""
    made = ", ".join(f"{name} {version}" for name, version in report.tools.items())
    variants = f" in {len(report.variants)} variants" if len(report.variants) > 1 else ""
    fixes = f" Exporter faults cured: {', '.join(report.fixes)}." if report.fixes else ""
    gates = ", ".join(f"{row.gate} {row.outcome}" for row in report.gates)
    passed = f" Gates: {gates}." if gates else ""
    name = RUNNERS[report.runner]
    return f"{name}, version {report.version}{variants}: opset {report.opset}, made with {made}.{fixes}{passed}"


def tables(part: Sequence[Report]) -> list[Table]:
    """The part's tables; those without rows are left out."""
    found = [times_table(part), parity_table(part), quality_table(part), trials_table(part)]
    return [table for table in found if table.rows]


def times_table(part: Sequence[Report]) -> Table:
    """Every case by runner."""
    cases = figures.cases_of(part)
    runners = [runner for runner in RUNNERS if any(runner in case.times for case in cases)]
    rows = []
    for case in cases:
        baseline = next(iter(case.times))
        cells = []
        for runner in runners:
            time = case.times.get(runner)
            faster = f" ({time.faster:.2f}x)" if time and runner != baseline else ""
            cells.append(f"{milliseconds(time.ms)}{faster}" if time else "-")
        rows.append([case.name, case.batch, *cells])
    header = ["case", "batch", *(RUNNERS[runner] for runner in runners)]
    if all(row[1] == figures.NO_BATCH for row in rows):
        return Table("Time of a call", [header[0], *header[2:]], [[row[0], *row[2:]] for row in rows])
    return Table("Time of a call", header, rows)


def parity_table(part: Sequence[Report]) -> Table:
    """The worst output at each case."""
    rows = []
    for report in part:
        for case in dict.fromkeys(row.case for row in report.parity):
            worst = max((row for row in report.parity if row.case == case), key=lambda row: row.relative)
            found = worst.reason or f"{worst.relative:.1e}"
            rows.append((RUNNERS[report.runner], case, worst.output, found, f"{report.relative_tolerance:.0e}"))
    return Table(
        "Parity, relative to the output's scale", ("runs as", "case", "worst output", "found", "allowed"), rows
    )


def quality_table(part: Sequence[Report]) -> Table:
    """Measures of whole results."""
    rows = [
        (
            RUNNERS[report.runner],
            row.measure,
            quality_value(row, row.value),
            f"{'at least' if row.better == 'higher' else 'at most'} {quality_value(row, row.bound)}",
            "passed" if row.passed else f"failed: {row.reason}".rstrip(": "),
        )
        for report in part
        for row in report.quality
    ]
    return Table("Quality of whole results", ("runs as", "measure", "value", "bound", "outcome"), rows)


def trials_table(part: Sequence[Report]) -> Table:
    """Attempts at INT8."""
    rows = [
        (
            str(len(trial.float_nodes)),
            f"{trial.measure} {trial.quality:.4g}",
            milliseconds(trial.ms),
            size(trial.onnx_bytes),
            "yes" if trial.accepted else "no",
        )
        for report in part
        for trial in report.trials
    ]
    return Table("INT8: what was tried", ("nodes in float", "quality", "time", "size", "accepted"), rows)


def trials_plot(report: Report) -> Points:
    """Quality by time of the attempts at INT8."""
    points = [
        Point(
            f"{len(trial.float_nodes)} nodes in float: {trial.measure} {trial.quality:.4g}, {milliseconds(trial.ms)}",
            trial.ms,
            trial.quality,
            trial.accepted,
        )
        for trial in report.trials
    ]
    return Points("INT8: quality by time", "ms, filled: accepted", report.trials[0].measure, points)
