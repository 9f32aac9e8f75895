"""Checks model repositories and reports everything wrong with them; called by `reelmesh models lint` and the gates.

The one invariant: whatever passes lint without errors also loads, since both run the same checks.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from serving.errors import NotFound
from serving.repository.advice import check_memory
from serving.repository.checks import Engines
from serving.repository.derive import DEFAULT_FILES
from serving.repository.findings import Finding
from serving.repository.load import read_repositories
from serving.repository.read import CARD_FILE, CONFIG_FILE


class Target(NamedTuple):
    """What is looked at: folders of models, and the one model to report on, or None for all."""

    paths: list[Path]
    model: str | None = None


def lint(
    paths: Sequence[Path], engines: Engines | None = None, *, model: str | None = None, gpu_mib: float | None = None
) -> list[Finding]:
    """All findings, errors first, then by file and line.

    Args:
        paths: folders of models.
        engines: engine names by backend; None leaves them unchecked.
        model: report on this one alone; the others are read, since it may name them.
        gpu_mib: memory of a GPU, which declared memory is compared with; None compares nothing.
    """
    raws, findings = read_repositories(paths, engines)
    if gpu_mib is not None:
        findings += check_memory({raw.name: raw for raw in raws}, gpu_mib)
    if model is not None:
        folders = [path.resolve() / model for path in paths]
        findings = [found for found in findings if any(found.file.is_relative_to(folder) for folder in folders)]
    return sorted(findings, key=lambda found: (found.severity, str(found.file), found.line, found.field))


def target_of(text: str, repositories: Sequence[Path]) -> Target:
    """What a person means by a folder of models, the folder of one model, or the name of a model in ``repositories``.

    Raises:
        NotFound: it is none of them; names the nearest model.
    """
    folder = Path(text).expanduser()
    if folder.is_dir():
        folder = folder.resolve()
        return Target([folder.parent], folder.name) if _is_model(folder) else Target([folder])
    names = [found.name for path in repositories if path.is_dir() for found in path.iterdir() if found.is_dir()]
    if text in names:
        return Target(list(repositories), text)
    near = difflib.get_close_matches(text, names, n=1)
    fix = f"did you mean {near[0]!r}?" if near else "name a folder of models, a model's folder, or a model"
    raise NotFound(f"no model and no folder {text[:128]!r}", field="DIR|MODEL", fix=fix)


def _is_model(folder: Path) -> bool:
    """Whether a folder holds what a model's does: one of its files, or a version with a file Triton knows."""
    versions = (path for path in folder.iterdir() if path.name.isdecimal())
    return any((folder / file).exists() for file in (CONFIG_FILE, CARD_FILE)) or any(
        (version / file).exists() for version in versions for file in DEFAULT_FILES.values()
    )
