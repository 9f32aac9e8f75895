"""Remote: the seam behind which hub, bucket, MLflow and DVC lie; implemented beside it, used by the download.

The one invariant: what a remote lists is checked here before any of it becomes a path on this machine's disk.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol

from serving.errors import BadInput, shown

if TYPE_CHECKING:
    from hashlib import _Hash

MAX_FILES: Final = 10_000
MAX_NAME_CHARS: Final = 512
MAX_FILE_BYTES: Final = 1 << 42
"""4 TiB: a size above it is an error of the listing."""


class Digest(NamedTuple):
    """What the source says of a file's bytes; ``git-sha1`` is git's name of a blob, which the hub gives small files."""

    algorithm: Literal["sha256", "md5", "git-sha1"]
    value: str

    def started(self, size_bytes: int) -> "_Hash":
        """A hash that has seen what comes before the file's bytes."""
        if self.algorithm == "git-sha1":
            return hashlib.sha1(f"blob {size_bytes}\0".encode(), usedforsecurity=False)
        return hashlib.new(self.algorithm, usedforsecurity=False)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a source.

    Args:
        name: relative, with ``/`` between folders.
        size_bytes: as the source says.
        place: how the remote finds it: an address, a key, a path.
        digest: as the source says; None where it says none.
        version: what changes when the bytes do (an ETag), where there is no digest.
    """

    name: str
    size_bytes: int
    place: str
    digest: Digest | None = None
    version: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """All files of a source, and the revision that they are of."""

    revision: str | None
    files: tuple[RemoteFile, ...]


class Pieces(NamedTuple):
    """Bytes from an offset on; 0 where the server cannot begin in the middle."""

    offset: int
    pieces: Iterator[bytes]


class Remote(Protocol):
    """One source. Errors: ``Unavailable`` where trying again may help, others where it will not."""

    def listing(self) -> Listing:
        """What there is; checked by :func:`checked`."""

    def open(self, file: RemoteFile, offset: int) -> AbstractContextManager[Pieces]:
        """The bytes of a file from ``offset`` on, piece by piece; pieces of at most a few MiB."""

    def close(self) -> None:
        """Let go of connections."""


def checked(files: Sequence[RemoteFile], uri: str) -> tuple[RemoteFile, ...]:
    """The files sorted by name, if every name may become a path below a folder.

    Raises:
        BadInput: too many files, a name that leads elsewhere, two of one name, a size that cannot be.
    """
    if len(files) > MAX_FILES:
        fix = "name a folder that holds one model"
        raise BadInput(f"{uri} lists {len(files)} files, over {MAX_FILES}", field="source.uri", fix=fix)
    seen: set[str] = set()
    for file in files:
        if not _safe(file.name) or file.name in seen or not 0 <= file.size_bytes <= MAX_FILE_BYTES:
            fix = "name a source whose files have plain relative names"
            raise BadInput(f"{uri} lists a file that cannot be: {shown(file.name)}", field="source.uri", fix=fix)
        seen.add(file.name)
    if clash := next((name for name in seen for above in _folders(name) if above in seen), None):
        fix = "name a source whose files have plain relative names"
        raise BadInput(f"{uri} lists {shown(clash)} below a file", field="source.uri", fix=fix)
    return tuple(sorted(files, key=lambda file: file.name))


def _safe(name: str) -> bool:
    parts = name.split("/")
    plain = name.isprintable() and "\\" not in name and len(name) <= MAX_NAME_CHARS
    return plain and all(part not in {"", ".", ".."} and not part.endswith(".part") for part in parts)


def _folders(name: str) -> Iterator[str]:
    parts = name.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts)))
