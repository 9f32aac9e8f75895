"""The reports of everything that is published in some repositories; used by `reelmesh optimize --report`.

The one invariant: of every model or part there is the newest report of each runner (precision and runtime), in a fixed
order; a report that cannot be read is an error, since a page without it would look whole.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from optimize.report import REPORT_FILE, Report
from optimize.report_text import RUNNERS
from serving.errors import BadInput, foreign_text


def collect(repositories: Sequence[Path]) -> list[Report]:
    """Read the newest reports, by model, part and runner.

    Args:
        repositories: folders of models; of two models of one name, the first repository's counts, as it is served.

    Raises:
        BadInput: a report is damaged or of an older form; names the file.
    """
    folders: dict[str, Path] = {}
    for repository in repositories:
        for folder in sorted(repository.iterdir()) if repository.is_dir() else ():
            if folder.is_dir() and not folder.name.startswith((".", "_")):
                folders.setdefault(folder.name, folder)
    newest = {
        (name, report.runner): report for name, folder in sorted(folders.items()) for report in reports_of(folder)
    }
    return sorted(newest.values(), key=order)


def reports_of(folder: Path) -> Iterator[Report]:
    """The reports of a model's versions, oldest first."""
    versions = sorted(int(path.name) for path in folder.iterdir() if path.is_dir() and path.name.isdecimal())
    for version in versions:
        file = folder / str(version) / REPORT_FILE
        if file.is_file():
            yield parsed(file)


def parsed(file: Path) -> Report:
    """One report; BadInput names the file and how to make it anew."""
    try:
        return Report.model_validate_json(file.read_bytes())
    except (OSError, ValueError) as error:
        model = file.parents[1].name
        raise BadInput(
            f"the report cannot be read ({foreign_text(error)})",
            field=str(file),
            fix=f"export it again (reelmesh optimize {model} --force), or remove version {file.parent.name}",
        ) from error


def order(report: Report) -> tuple[str, str, int]:
    """By model, part, and runner as tables show them."""
    runners = list(RUNNERS)
    return report.model, report.part, runners.index(report.runner)
