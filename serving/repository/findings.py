"""Finding: one thing wrong with a model repository, as `reelmesh models lint` prints it; made by read and checks.

The one invariant: a finding always says file, line, field, problem and fix, so a reader never has to search.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serving.errors import BadInput


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem.

    Args:
        file: absolute path of the file or folder.
        line: counted from 1; 0 where the finding is about the whole file or folder.
        field: dotted path in the file, or "-" for all of it.
        problem: what is wrong, without a final full stop.
        fix: what to do.
        severity: an ``error`` keeps the repository from loading, a ``warning`` does not.
    """

    file: Path
    line: int
    field: str
    problem: str
    fix: str
    severity: Literal["error", "warning"] = "error"

    def render(self, base: Path | None = None) -> str:
        """``file:line:field: problem: fix`` on one line; paths below ``base`` are written relative to it."""
        return f"{self.where(base)}: {self.problem}: {self.fix}"

    def where(self, base: Path | None = None) -> str:
        """``file:line:field``, without the line where there is none."""
        file = self.file
        if base is not None and file.is_relative_to(base):
            file = file.relative_to(base)
        return ":".join([str(file), *([str(self.line)] if self.line else []), self.field])


def errors(findings: Sequence[Finding]) -> list[Finding]:
    """The findings that keep a repository from loading."""
    return [finding for finding in findings if finding.severity == "error"]


def as_error(findings: Sequence[Finding]) -> BadInput:
    """One :class:`BadInput` for a non-empty list of errors: the first in full, and how to see the others."""
    first = findings[0]
    more = len(findings) - 1
    tail = f" ({more} more: `reelmesh models lint`)" if more else ""
    return BadInput(first.problem, field=first.where(Path.cwd()).removesuffix(":-"), fix=first.fix + tail)
