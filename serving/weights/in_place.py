"""Folders of weights that are used where they lie: checked, and their digests remembered; used by the cache.

The one invariant: a remembered digest is used only while size, time of change and inode of its file are the same.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from pydantic import BaseModel, TypeAdapter, ValidationError

from serving.repository.model import Source
from serving.weights.contents import check_folder
from serving.weights.manifest import Entry, Manifest, digests
from serving.weights.progress import Meter
from serving.weights.remote import RemoteFile


class _Seen(BaseModel):
    """A file as it was when its digest was taken."""

    size_bytes: int
    version: str
    sha256: str


_NOTES: Final = TypeAdapter(dict[str, _Seen])


def manifest_of(
    folder: Path,
    files: tuple[RemoteFile, ...],
    source: Source,
    note: Path,
    meter: Meter,
    threads: int,
) -> Manifest:
    """Check the files and take their digests; a file that did not change is not read again.

    Args:
        folder: where the files are.
        files: those that the card wants.
        source: of the card.
        note: where digests are remembered.
        meter: counts what was read.
        threads: files read at a time.

    Raises:
        BadInput: a pickle that is not allowed, a damaged safetensors file, a missing shard.
        OSError: the folder cannot be read.
    """
    check_folder(folder, [file.name for file in files], source.allow_pickles, source.uri)
    known = _read(note)
    meter.begin(0, sum(file.size_bytes for file in files))

    def looked_at(file: RemoteFile) -> _Seen:
        before = known.get(file.name)
        if before is None or (before.size_bytes, before.version) != (file.size_bytes, file.version):
            sha256, _ = digests(Path(file.place), None, lambda: None)
            before = _Seen(size_bytes=file.size_bytes, version=file.version, sha256=sha256)
        meter.add(file.size_bytes)
        return before

    with ThreadPoolExecutor(threads, "weights") as pool:
        seen = dict(zip((file.name for file in files), pool.map(looked_at, files), strict=True))
    if seen != known:
        _write(note, seen)
    entries = (Entry(name=name, size_bytes=one.size_bytes, sha256=one.sha256) for name, one in seen.items())
    return Manifest(uri=source.uri, files=tuple(entries))


def _read(note: Path) -> dict[str, _Seen]:
    try:
        return _NOTES.validate_json(note.read_bytes())
    except (OSError, ValidationError):
        return {}


def _write(note: Path, seen: dict[str, _Seen]) -> None:
    """What cannot be remembered, on a full disk or a read-only one, is read again the next time."""
    temporary = note.with_name(f"{note.name}.{os.getpid()}.new")
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(_NOTES.dump_json(seen))
        temporary.replace(note)
    except OSError:
        temporary.unlink(missing_ok=True)
