"""Checks that every maker of a tiny checkpoint must pass; called by their tests.

The one invariant: a maker runs twice, in folders of its own.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

MOST_BYTES = 5_000_000


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, by its path in the folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def made_twice(make: Callable[[Path], Mapping[str, Any]], into: Path) -> tuple[Path, Mapping[str, Any]]:
    """The folder and the changes of the card, after two equal runs that stay small."""
    folders = [into / name for name in ("first", "second")]
    told = []
    for folder in folders:
        folder.mkdir()
        told.append(make(folder))
    assert told[0] == told[1]
    assert digests(folders[0]) == digests(folders[1])
    assert sum(path.stat().st_size for path in folders[0].rglob("*") if path.is_file()) < MOST_BYTES
    return folders[0], told[0]


def keys(path: Path) -> set[str]:
    """Names of the tensors of a safetensors file."""
    with safe_open(path, "pt") as tensors:
        return set(tensors.keys())
