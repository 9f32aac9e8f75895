"""Plots as SVG: horizontal bars in groups, and points; drawn by templates, used by optimize.page.write.

The one invariant: a plot is as wide as a phone's screen and every bar has its name and its value written beside it, so
that it reads without colours, without a legend and without scaling.
"""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES: Final = Path(__file__).parent / "templates"
WIDTH_PX: Final = 340
NAME_PX: Final = 96
VALUE_PX: Final = 68
BAR_PX: Final = WIDTH_PX - NAME_PX - VALUE_PX
ROW_PX: Final = 17
LABEL_PX: Final = 22
GAP_PX: Final = 8
LABEL_CHARS: Final = 50
"""What fits into the width in 12 px letters."""


class Bar(NamedTuple):
    """One value of a runner: its key (which gives the colour), its name, the value and how it is written."""

    runner: str
    name: str
    value: float
    text: str


class Group(NamedTuple):
    """Bars that belong together, under a label."""

    label: str
    bars: Sequence[Bar]


class Bars(NamedTuple):
    """A plot of bars: what it shows, of what, and a value that is marked by a line (None: none)."""

    title: str
    subtitle: str
    groups: Sequence[Group]
    mark: float | None = None


class Point(NamedTuple):
    """One point: what it is, its place, how its values are written, and whether it was taken."""

    label: str
    x: float
    y: float
    taken: bool


class Points(NamedTuple):
    """A plot of points: what it shows, and what its axes are, with units."""

    title: str
    x_axis: str
    y_axis: str
    points: Sequence[Point]


@cache
def environment() -> Environment:
    """Templates of plots and of the page; everything that is put into them is escaped."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def draw_bars(plot: Bars, *, alone: bool) -> str:
    """An SVG document; ``alone`` gives it a ground and colours of its own, for a file beside Markdown."""
    largest = max((bar.value for group in plot.groups for bar in group.bars), default=0.0)
    largest = max(largest, plot.mark or 0.0) or 1.0
    rows, y = [], 0
    for group in plot.groups:
        rows.append({"kind": "label", "y": y + 16, "full": group.label, "text": shortened(group.label)})
        y += LABEL_PX
        for bar in group.bars:
            width = round(max(1.0, BAR_PX * bar.value / largest), 1)
            rows.append({"kind": "bar", "y": y, "width": width, "bar": bar, "colour": colour(bar.runner)})
            y += ROW_PX
        y += GAP_PX
    mark = None if plot.mark is None else round(NAME_PX + BAR_PX * plot.mark / largest, 1)
    return _drawn(
        "bars.svg",
        plot=plot,
        rows=rows,
        height=y,
        mark=mark,
        alone=alone,
        name_px=NAME_PX,
        subtitle=shortened(plot.subtitle),
    )


def draw_points(plot: Points, *, alone: bool) -> str:
    """An SVG document of points between axes whose ends are written out."""
    left, top, width, height = 52, 10, WIDTH_PX - 52 - 14, 150
    xs, ys = span([point.x for point in plot.points]), span([point.y for point in plot.points])
    places = [
        {
            "x": round(left + width * share(point.x, xs), 1),
            "y": round(top + height * (1 - share(point.y, ys)), 1),
            "point": point,
        }
        for point in plot.points
    ]
    frame = {"left": left, "top": top, "right": left + width, "bottom": top + height}
    ends = {"x": [f"{value:.3g}" for value in xs], "y": [f"{value:.3g}" for value in ys]}
    return _drawn("points.svg", plot=plot, places=places, frame=frame, ends=ends, height=200, alone=alone)


def span(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis with some room around the values; infinities are left out."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    room = (high - low) * 0.1 or abs(high) * 0.1 or 1.0
    return low - room, high + room


def share(value: float, ends: tuple[float, float]) -> float:
    """Where a value lies between the ends, 0 to 1; infinities at the end."""
    return min(1.0, max(0.0, (value - ends[0]) / (ends[1] - ends[0])))


def shortened(label: str) -> str:
    """A label that fits; its end tells more than its middle."""
    if len(label) <= LABEL_CHARS:
        return label
    half = (LABEL_CHARS - 1) // 2
    return f"{label[:half]}…{label[-half:]}"


def colour(runner: str) -> str:
    """The class of a bar."""
    if runner.startswith("tensorrt"):
        return "tensorrt"
    return runner if runner in {"fp32", "fp16", "bf16", "int8"} else "base"


def _drawn(template: str, **values: object) -> str:
    return environment().get_template(template).render(width=WIDTH_PX, **values)
