"""The home folder belongs to one mesh at a time: the one a person names, or one of its own in the cache; for cli.

The one invariant: the lock is the kernel's, so it ends with the process that holds it, however that ends.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from serving.errors import BadInput, Unavailable, foreign_text

LOCK: Final = "mesh.lock"
THROWAWAYS_KEPT: Final = 3
"""Folders of meshes that failed or were killed, the newest, which stay for whoever asks what happened."""


@contextlib.contextmanager
def taken_home(home: Path) -> Iterator[None]:
    """Make the folder if need be and hold it for the block.

    Raises:
        Unavailable: another mesh holds it.
        BadInput: it cannot be made or written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(home / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        problem = foreign_text(error.strerror or error)
        raise BadInput(f"{home}: {problem}", field="home", fix="name a folder you may write to with --home") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        fix = "submit jobs to it (`reelmesh submit`), stop it, or give this one a folder of its own with --home"
        raise Unavailable(f"a mesh is already running on {home}", field="home", fix=fix) from None
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def throwaway_home(named: Path | None) -> Iterator[Path]:
    """The home that was named; without one, a folder in the user's cache for this run, which stays only if it fails."""
    if named is not None:
        yield named
        return
    parent = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reelmesh" / "serve"
    _forget(parent)
    folder = parent / secrets.token_hex(6)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _forget(parent: Path) -> None:
    """Remove what dead meshes left, but for the newest few."""
    homes = sorted((home for home in parent.glob("*") if home.is_dir()), key=_age_s)
    for home in homes[THROWAWAYS_KEPT:]:
        with contextlib.suppress(Unavailable, BadInput), taken_home(home):
            shutil.rmtree(home, ignore_errors=True)


def _age_s(home: Path) -> float:
    try:
        return -home.stat().st_mtime
    except OSError:
        return 0.0
