"""What the page's tables and plots show, taken from reports; pure, used by optimize.page.write.

The one invariant: a speed-up compares two times of one run on one machine, whichever reports it is shown beside.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from statistics import median
from typing import Final, NamedTuple

from optimize.page.charts import Bar, Bars, Group
from optimize.report import QualityRow, Report, Runner
from optimize.report_text import RUNNERS, milliseconds, quality_value, size

NO_BATCH: Final = "-"


class Time(NamedTuple):
    """Milliseconds of a runner, and how many times faster than the reference of the same run that is."""

    ms: float
    faster: float


class Case(NamedTuple):
    """One set of sizes of a part on one machine, and the times of every runner."""

    machine: str
    name: str
    batch: str
    times: Mapping[Runner, Time]

    @property
    def label(self) -> str:
        """The sizes, with the batch."""
        return self.name if self.batch == NO_BATCH else f"{self.name}, batch {self.batch}"


def parts_of(reports: Iterable[Report]) -> list[list[Report]]:
    """The reports of each model or part together."""
    return [list(group) for _, group in groupby(reports, key=lambda report: (report.model, report.part))]


def where(report: Report) -> str:
    """The machine a report was timed on."""
    return f"{report.machine}, {report.threads} threads"


def cases_of(part: Sequence[Report]) -> list[Case]:
    """Every case that was timed, in the order of the reports; what a newer version timed replaces what an older did."""
    times: dict[tuple[str, str, str], dict[Runner, Time]] = {}
    for report in sorted(part, key=lambda each: each.version):
        for row in report.timing:
            name = f"{row.variant}: {row.case}" if row.variant else row.case
            batch = NO_BATCH if row.batch is None else str(row.batch)
            known = times.setdefault((where(report), name, batch), {})
            known.update({runner: Time(ms, row.faster(runner)) for runner, ms in row.ms.items()})
    return [Case(*key, ordered(found)) for key, found in times.items()]


def ordered(times: Mapping[Runner, Time]) -> dict[Runner, Time]:
    """By runner, as tables show them."""
    return {runner: times[runner] for runner in RUNNERS if runner in times}


def medians(part: Sequence[Report], machine: str) -> dict[Runner, float]:
    """How many times faster than the reference each other runner is: the median over the cases."""
    faster: dict[Runner, list[float]] = {}
    for case in cases_of(part):
        for runner, time in list(case.times.items())[1:] if case.machine == machine else ():
            faster.setdefault(runner, []).append(time.faster)
    return {runner: median(values) for runner, values in faster.items()}


def speeds(parts: Sequence[Sequence[Report]]) -> list[Bars]:
    """A plot for each machine, of how many times faster every part runs; the fastest first."""
    machines = sorted({where(report) for part in parts for report in part if report.timing})
    plots = []
    for machine in machines:
        rows = [(part[0].title, medians(part, machine)) for part in parts]
        groups = [Group(title, _bars(found, lambda value: f"{value:.2f}x")) for title, found in rows if found]
        plots.append(Bars("Times faster than the reference (line: as fast)", machine, largest_first(groups), mark=1.0))
    return plots


def sizes(parts: Sequence[Sequence[Report]]) -> Bars:
    """Bytes of the weights in torch and of each exported precision; the largest first."""
    groups = []
    for part in parts:
        found: dict[Runner, float] = {each.runner: each.onnx_bytes for each in part}
        if memory := part[-1].memory:
            found = {"torch": memory.weights_bytes, **found}
        groups.append(Group(part[0].title, _bars(found, size)))
    return Bars("Size", "weights in torch, exported files", largest_first(groups))


def memories(parts: Sequence[Sequence[Report]]) -> Bars:
    """The most memory that the part takes; the largest first."""
    groups = []
    for part in parts:
        measured = {each.runner: each.memory for each in part if each.memory}
        if measured:
            found: dict[Runner, float] = {"torch": list(measured.values())[-1].torch_peak_bytes}
            found.update({runner: memory.onnx_peak_bytes for runner, memory in measured.items()})
            groups.append(Group(part[0].title, _bars(found, size)))
    return Bars(
        "Peak memory",
        "torch: weights and allocations of a call; files: growth of a process that loads and answers it",
        largest_first(groups),
    )


def largest_first(groups: Sequence[Group]) -> list[Group]:
    """By the longest bar of each, then by name."""
    return sorted(groups, key=lambda group: (-max(bar.value for bar in group.bars), group.label))


def times(part: Sequence[Report]) -> Bars:
    """Milliseconds of every runner by case."""
    cases = cases_of(part)
    several = len({case.machine for case in cases}) > 1
    groups = [
        Group(
            f"{case.label} ({case.machine})" if several else case.label,
            _bars({runner: time.ms for runner, time in case.times.items()}, milliseconds),
        )
        for case in cases
    ]
    return Bars("Time of a call", ", ".join(sorted({case.machine for case in cases})), groups)


def _bars(values: Mapping[Runner, float], text: Callable[[float], str]) -> list[Bar]:
    return [Bar(runner, RUNNERS[runner], value, text(value)) for runner, value in values.items()]


def summary(report: Report) -> dict[str, str]:
    """A report's line of the first table."""
    speedup = report.speedup
    return {
        "part": report.title,
        "runner": RUNNERS[report.runner],
        "version": str(report.version),
        "size": size(report.onnx_bytes),
        "parity": f"{report.worst:.1e} of {report.relative_tolerance:.0e}" if report.parity else "-",
        "quality": headline(report.quality),
        "faster": f"{speedup:.2f}x" if speedup is not None else "-",
        "memory": size(report.memory.onnx_peak_bytes) if report.memory else "-",
    }


def headline(rows: Sequence[QualityRow]) -> str:
    """The first measure that says something, or the one that failed."""
    failed = [row for row in rows if not row.passed]
    telling = failed or [row for row in rows if row.measure != "length"]
    if not telling:
        return "-"
    value = quality_value(telling[0], telling[0].value)
    return f"{telling[0].measure} {value}" + (" (failed)" if failed else "")
