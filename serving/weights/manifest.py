"""Manifest: what a snapshot of weights consists of, file by file; written by the cache, read by verify and provenance.

The one invariant: equal digests mean equal names and equal bytes, wherever they were fetched from and whenever.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from serving.weights.remote import Digest

_PIECE_BYTES: Final = 1 << 20


class Entry(BaseModel):
    """One file: name relative to the snapshot's folder, size in bytes, SHA-256 of its bytes in hex."""

    model_config = ConfigDict(frozen=True)

    name: str
    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """A snapshot.

    Attributes:
        uri: where it came from, as the card names it.
        asked: the revisions that cards named and that were this one when they were asked for.
        revision: what that was when it was fetched: a commit, a digest of the listing; None where there is none.
        files: sorted by name.
        fetched_at: when the source last said that this is what was asked for, in Unix seconds.
        download_s: how long fetching took.
    """

    model_config = ConfigDict(frozen=True)

    uri: str
    asked: tuple[str | None, ...] = ()
    revision: str | None = None
    files: tuple[Entry, ...]
    fetched_at: float = 0.0
    download_s: float = 0.0

    @property
    def digest(self) -> str:
        """SHA-256 in hex over names and digests of the files, in their order; nothing else goes in."""
        lines = "".join(f"{entry.sha256}  {entry.name}\n" for entry in self.files)
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(entry.size_bytes for entry in self.files)


def digests(path: Path, wanted: Digest | None, check: Callable[[], None]) -> tuple[str, str | None]:
    """A file's SHA-256, and its digest in the algorithm of ``wanted``, in one reading.

    Args:
        path: the file.
        wanted: what the source says of it, if anything.
        check: called for every MiB; raises to stop.
    """
    sha256 = hashlib.sha256()
    other = None
    if wanted is not None and wanted.algorithm != "sha256":
        other = wanted.started(path.stat().st_size)
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            check()
            sha256.update(piece)
            if other is not None:
                other.update(piece)
    if wanted is None:
        return sha256.hexdigest(), None
    return sha256.hexdigest(), sha256.hexdigest() if other is None else other.hexdigest()
