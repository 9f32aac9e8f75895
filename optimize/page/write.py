"""The page of all reports, as Markdown with plots beside it and as one HTML file; used by `reelmesh optimize`.

The one invariant: the same reports give the same bytes, and the HTML loads nothing from anywhere.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from optimize.page.charts import Bars, Points, draw_bars, draw_points, environment
from optimize.page.collect import order
from optimize.page.content import Content, Section, content
from optimize.report import Report
from optimize.report_text import table

STEM: Final = "optimize-report"
"""Name of the files, without an ending."""


class Page(NamedTuple):
    """Both forms, and the SVG files that the Markdown shows, by file name."""

    markdown: str
    html: str
    plots: Mapping[str, str]


def page(reports: Sequence[Report], repositories: Sequence[Path] = (), stem: str = STEM) -> Page:
    """One page over all reports.

    Args:
        reports: of each part the newest of every runner, as :func:`optimize.page.collect` finds them, in any order.
        repositories: where they were looked for, named where there are none.
        stem: what the plots' file names begin with.
    """
    found = content(sorted(reports, key=order), repositories)
    drawn = [*found.plots, *(plot for section in found.sections for plot in section.plots)]
    plots = {f"{stem}-{key}.svg": draw(plot, alone=True) for key, plot in drawn}
    html = environment().get_template("page.html").render(content=found, draw=inline)
    return Page(markdown(found, stem), html, plots)


def write_page(
    folder: Path, reports: Sequence[Report], repositories: Sequence[Path] = (), stem: str = STEM
) -> list[Path]:
    """Write ``<stem>.md``, ``<stem>.html`` and the plots into a folder, which is made; gives the files' paths.

    Plots of an earlier page with the same stem that this one does not show are removed.
    """
    made = page(reports, repositories, stem)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {f"{stem}.md": made.markdown, f"{stem}.html": made.html, **made.plots}
    for old in folder.glob(f"{stem}-*.svg"):
        if old.name not in texts:
            old.unlink()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def draw(plot: Bars | Points, *, alone: bool) -> str:
    """Whichever plot it is."""
    return draw_points(plot, alone=alone) if isinstance(plot, Points) else draw_bars(plot, alone=alone)


def inline(plot: Bars | Points) -> str:
    """A plot for the middle of a page."""
    return draw(plot, alone=False)


def markdown(found: Content, stem: str) -> str:
    """The page for a repository's reader."""
    lines = [f"# {found.title}", ""]
    if found.empty:
        return "\n".join([*lines, found.empty, ""])
    lines += [found.lead, "", *table(found.summary.header, found.summary.rows), ""]
    lines += [images(found.plots, stem), ""]
    for section in found.sections:
        lines += markdown_section(section, stem)
    return "\n".join(lines)


def markdown_section(section: Section, stem: str) -> list[str]:
    """One part."""
    lines = [f"## {section.title}", "", *(f"- {fact}" for fact in section.facts), ""]
    if section.plots:
        lines += [images(section.plots, stem), ""]
    for each in section.tables:
        lines += [f"### {each.heading}", "", *table(each.header, each.rows), ""]
    return lines


def images(plots: Sequence[tuple[str, Bars | Points]], stem: str) -> str:
    """Plots beside one another where there is room."""
    return "\n".join(f"![{plot.title}]({stem}-{key}.svg)" for key, plot in plots)
