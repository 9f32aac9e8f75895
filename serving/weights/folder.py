"""FolderRemote: a folder, or one file, of this machine as a source; used by the cache and for MLflow's and DVC's own.

The one invariant: links that lead out of the folder are followed, since hub caches are made of them, but no folder is
visited twice and nothing but plain files is listed.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from serving.errors import BadInput, NotFound, Unavailable, foreign_text
from serving.weights.remote import MAX_FILES, Listing, Pieces, RemoteFile

_PIECE_BYTES: Final = 1 << 20
_MAX_FOLDERS: Final = 10_000


class FolderRemote:
    """Reads files where they lie.

    Args:
        path: a folder, or one file.
        uri: for messages.
    """

    def __init__(self, path: Path, uri: str) -> None:
        self.folder = path.parent if path.is_file() else path
        self._path, self._uri = path, uri

    def listing(self) -> Listing:
        """Every file below the folder; hidden files and folders are left out.

        Raises:
            NotFound: there is no such folder.
            BadInput: more files than a model has.
        """
        if not self._path.exists():
            fix = "put the weights there, or correct the path"
            raise NotFound(f"{self._uri} is not there: {self._path}", field="source.uri", fix=fix)
        paths = [self._path] if self._path.is_file() else list(_files(self._path, self._uri))
        return Listing(None, tuple(_listed(path, self.folder) for path in sorted(paths)))

    @contextlib.contextmanager
    def open(self, file: RemoteFile, offset: int) -> Iterator[Pieces]:
        """As the protocol says; :class:`Unavailable` when the disk it lies on does not answer."""
        try:
            stream = Path(file.place).open("rb")  # noqa: SIM115  closed below
        except OSError as error:
            raise Unavailable(f"{file.place} cannot be read: {foreign_text(error)}") from error
        with stream:
            stream.seek(offset)
            yield Pieces(offset, _pieces(stream.fileno(), file.place))

    def close(self) -> None:
        """Nothing is kept open."""


def _pieces(descriptor: int, place: str) -> Iterator[bytes]:
    while True:
        try:
            piece = os.read(descriptor, _PIECE_BYTES)
        except OSError as error:  # not of the disk that is written to
            raise Unavailable(f"{place} cannot be read: {foreign_text(error)}") from error
        if not piece:
            return
        yield piece


def _files(folder: Path, uri: str) -> Iterator[Path]:
    waiting, seen, count = [folder], {folder.resolve()}, 0
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_dir() and path.resolve() not in seen:
                seen.add(path.resolve())
                waiting.append(path)
            elif path.is_file():
                count += 1
                yield path
        if count > MAX_FILES or len(seen) > _MAX_FOLDERS:
            fix = "point source at the folder of one model"
            raise BadInput(f"{uri} holds over {MAX_FILES} files", field="source.uri", fix=fix)


def _listed(path: Path, folder: Path) -> RemoteFile:
    stat = path.stat()
    version = f"{stat.st_mtime_ns}-{stat.st_ino}"
    return RemoteFile(path.relative_to(folder).as_posix(), stat.st_size, str(path), version=version)
