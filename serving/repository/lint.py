"""Checks model repositories and reports everything wrong with them; called by `reelmesh models lint` and the gates.

The one invariant: whatever passes lint without errors also loads, since both run the same checks.
"""

from collections.abc import Sequence
from pathlib import Path

from serving.repository.findings import Finding
from serving.repository.load import read_repositories


def lint(paths: Sequence[Path]) -> list[Finding]:
    """All findings, errors first, then by file and line."""
    _, findings = read_repositories(paths)
    return sorted(findings, key=lambda found: (found.severity, str(found.file), found.line, found.field))
