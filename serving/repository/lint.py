"""Checks model repositories and reports everything wrong with them; called by `reelmesh models lint` and the gates.

The one invariant: whatever passes lint without errors also loads, since both run the same checks.
"""

from collections.abc import Sequence
from pathlib import Path

from serving.repository.checks import Engines
from serving.repository.findings import Finding
from serving.repository.load import read_repositories


def lint(paths: Sequence[Path], engines: Engines | None = None) -> list[Finding]:
    """All findings, errors first, then by file and line; engine names are checked where they are given."""
    _, findings = read_repositories(paths, engines)
    return sorted(findings, key=lambda found: (found.severity, str(found.file), found.line, found.field))
