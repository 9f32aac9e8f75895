"""Snapshots: what the cache's folder holds, by model; taken into use, published and removed here, by the cache alone.

The one invariant: a snapshot appears whole or not at all, by one rename, and is removed only while nobody uses it.

    <folder>/<key>/lock              who holds it fetches
                   progress.json     how far that one is
                   partial/<id>/     files of an unfinished fetch
                   snapshots/<id>/   manifest.json, in-use (locked by its users), files/
"""

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import ValidationError

from serving.weights import locks
from serving.weights.manifest import Manifest

MANIFEST: Final = "manifest.json"
IN_USE: Final = "in-use"
FILES: Final = "files"
ABANDONED_S: Final = 7 * 86_400.0
"""A partial fetch that nobody went on with for this long is removed by gc."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot of the cache.

    Args:
        path: its folder; the files are in ``files`` below it.
        manifest: what it consists of.
        used_at: when it was last taken into use, in Unix seconds.
    """

    path: Path
    manifest: Manifest
    used_at: float

    @property
    def files(self) -> Path:
        """The folder engines read."""
        return self.path / FILES


@dataclass(frozen=True, slots=True)
class Removed:
    """What gc removed, or would remove: where it came from, when it was used last (Unix seconds), bytes."""

    uri: str
    revision: str | None
    used_at: float
    size_bytes: int


def snapshots_in(key_folder: Path) -> list[Snapshot]:
    """The snapshots of one model, the newest first; what cannot be read is left out."""
    found = []
    for path in (key_folder / "snapshots").glob("*"):
        with contextlib.suppress(OSError, ValidationError):
            manifest = Manifest.model_validate_json((path / MANIFEST).read_bytes())
            found.append(Snapshot(path, manifest, (path / IN_USE).stat().st_mtime))
    return sorted(found, key=lambda snapshot: -snapshot.manifest.fetched_at)


def find(key_folder: Path, asked: str | None) -> Snapshot | None:
    """The newest snapshot of a revision."""
    for snapshot in snapshots_in(key_folder):
        if asked in snapshot.manifest.asked or (asked is not None and asked == snapshot.manifest.revision):
            return snapshot
    return None


def take(snapshot: Snapshot) -> int | None:
    """Use a snapshot: a descriptor that keeps it until it is closed; None if it is gone."""
    lock = locks.used(snapshot.path / IN_USE)
    if lock is not None:
        with contextlib.suppress(OSError):  # a cache that is mounted read-only has nothing to remove either
            os.utime(lock)
    return lock


def publish(partial: Path, manifest: Manifest, snapshots: Path) -> tuple[Snapshot, int]:
    """Turn a complete partial fetch into a snapshot that the caller uses already; its descriptor comes too."""
    _write(partial / MANIFEST, manifest)
    (partial / IN_USE).touch()
    lock = locks.used(partial / IN_USE)
    if lock is None:  # nobody else knows of the folder
        raise FileNotFoundError(partial / IN_USE)
    target = snapshots / partial.name
    snapshots.mkdir(exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)  # there is one only if its manifest could not be read
    _sync(partial)
    partial.rename(target)
    _sync(snapshots)
    return Snapshot(target, manifest, time.time()), lock


def confirm(snapshot: Snapshot, asked: str | None) -> Snapshot:
    """Note that a revision is this snapshot, as of now."""
    known = snapshot.manifest
    manifest = known.model_copy(update={"asked": tuple({*known.asked, asked}), "fetched_at": time.time()})
    _write(snapshot.path / MANIFEST, manifest)
    return Snapshot(snapshot.path, manifest, snapshot.used_at)


def collect(folder: Path, limit_bytes: int, *, dry_run: bool = False) -> list[Removed]:
    """Remove what was used longest ago until the rest fits, and abandoned partial fetches.

    Partial fetches that nobody goes on with at the moment go first, then snapshots; never one in use.

    Args:
        folder: of the whole cache.
        limit_bytes: how much may stay.
        dry_run: only say what would go.
    """
    removed = [] if dry_run else list(_abandoned(folder))
    total = held_bytes(folder)
    for left in sorted(_idle(folder), key=lambda left: left.used_at):
        if total <= limit_bytes:
            return removed
        if dry_run or _dropped(left.path):
            total -= left.size_bytes
            removed.append(Removed(f"unfinished: {left.path.parents[1].name}", None, left.used_at, left.size_bytes))
    held = sorted((one for key in folder.glob("*") for one in snapshots_in(key)), key=lambda one: one.used_at)
    for one in held:
        if total <= limit_bytes:
            break
        if remove(one, dry_run=dry_run):
            total -= one.manifest.size_bytes
            told = one.manifest
            removed.append(Removed(told.uri, told.revision, one.used_at, told.size_bytes))
    return removed


def held_bytes(folder: Path) -> int:
    """Size of all snapshots together, and of partial fetches that nobody goes on with at the moment."""
    kept = sum(one.manifest.size_bytes for key in folder.glob("*") for one in snapshots_in(key))
    return kept + sum(left.size_bytes for left in _idle(folder))


def remove(snapshot: Snapshot, *, dry_run: bool = False) -> bool:
    """Remove a snapshot; False, and nothing happens, while somebody uses it."""
    lock = locks.unused(snapshot.path / IN_USE)
    if lock is None:
        return False
    try:
        if not dry_run:
            # Renamed first, so that whoever looks meanwhile sees all of it or nothing.
            gone = snapshot.path.parent.parent / f"removing-{snapshot.path.name}"
            shutil.rmtree(gone, ignore_errors=True)  # of a removal that was killed half way
            snapshot.path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
    finally:
        os.close(lock)
    return True


class _Left(NamedTuple):
    """A partial fetch: when its files changed last (Unix seconds), and their bytes."""

    path: Path
    used_at: float
    size_bytes: int


def _idle(folder: Path) -> Iterator[_Left]:
    for path in folder.glob("*/partial/*"):
        lock = locks.unused(path.parents[1] / "lock")
        if lock is None:
            continue
        try:
            stats = [each.stat() for each in [path, *path.rglob("*")]]
            size = sum(each.st_size for each in stats if stat.S_ISREG(each.st_mode))
            yield _Left(path, max(each.st_mtime for each in stats), size)
        except FileNotFoundError:
            continue
        finally:
            os.close(lock)


def _dropped(partial: Path) -> bool:
    """Remove a partial fetch; False where somebody goes on with it now."""
    lock = locks.unused(partial.parents[1] / "lock")
    if lock is None:
        return False
    try:
        shutil.rmtree(partial, ignore_errors=True)
    finally:
        os.close(lock)
    return True


def _abandoned(folder: Path) -> Iterator[Removed]:
    for left in [*folder.glob("*/partial/*"), *folder.glob("*/removing-*")]:
        key = left.parent.parent if left.parent.name == "partial" else left.parent
        lock = locks.unused(key / "lock")
        if lock is None:
            continue
        try:
            changed_at = max((path.stat().st_mtime for path in [left, *left.rglob("*")]), default=0.0)
            if left.parent.name != "partial" or changed_at < time.time() - ABANDONED_S:
                size = sum(path.stat().st_size for path in left.rglob("*") if path.is_file())
                shutil.rmtree(left, ignore_errors=True)
                yield Removed(f"unfinished: {key.name}", None, changed_at, size)
        except FileNotFoundError:
            continue
        finally:
            os.close(lock)


def _write(path: Path, manifest: Manifest) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def _sync(folder: Path) -> None:
    """Names reach the disk too, so that a power cut leaves no snapshot that lacks some."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
