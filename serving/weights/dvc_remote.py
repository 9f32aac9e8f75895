"""DvcRemote: a path that DVC tracks in a folder or checkout, from DVC's cache or its remote; made by remotes.

The one invariant: bytes are found by the MD5 that the checked-out files name, so what is served is what the commit of
the checkout says, not what lies in the working folder.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from serving.errors import BadInput, NotFound, Unsupported, foreign_text
from serving.weights.bucket import BucketRemote
from serving.weights.dvc_files import MAX_FILE_BYTES, Out, listing_of, outs_of, remote_of
from serving.weights.folder import FolderRemote
from serving.weights.remote import Digest, Listing, Pieces, RemoteFile

_CACHE: Final = ".dvc/cache"
_OPTIONS: Final = {
    "endpointurl": "endpoint",
    "region": "region",
    "access_key_id": "access_key_id",
    "secret_access_key": "secret_access_key",
    "session_token": "session_token",
}
"""What obstore calls DVC's options of a remote."""


class DvcRemote:
    """A tracked file, folder, or path below a tracked folder.

    Args:
        path: absolute, with or without ``.dvc`` at its end; the data need not be checked out.
        uri: for messages.
        bucket: makes the remote of an ``s3://`` address with options.
    """

    def __init__(self, path: Path, uri: str, bucket: Callable[[str, dict[str, Any]], BucketRemote]) -> None:
        # Not resolved: DVC may have put a link to its cache there.
        self._path = Path(os.path.normpath(path.with_suffix("") if path.suffix == ".dvc" else path))
        self._uri, self._make_bucket = uri, bucket
        self._root = next((above for above in self._path.parents if (above / ".dvc").is_dir()), None)
        self._bucket: BucketRemote | None = None
        self._folder: Path | None = None

    def listing(self) -> Listing:
        """Every tracked file of the path; the revision is the MD5 that DVC names it by.

        Raises:
            NotFound: no DVC repository around the path, nothing tracked there, or the bytes were not pushed.
            Unsupported: a remote that is neither a folder nor S3.
        """
        if self._root is None:
            fix = "point source at a path in a checkout with a .dvc folder"
            raise NotFound(f"{self._uri} is in no DVC repository: {self._path}", field="source.uri", fix=fix)
        out, below = self._tracked(self._root)
        self._open_remote(self._root, out.remote)
        if not out.md5.endswith(".dir"):
            place, size = self._found(out.md5)
            return Listing(out.md5, (RemoteFile(self._path.name, size, place, Digest("md5", out.md5)),))
        entries = listing_of(self._read(out.md5), f"{out.path} (.dir)")
        wanted = [(name, md5) for name, md5 in entries if name == below or name.startswith(f"{below}/") or not below]
        files = [(name.removeprefix(below).lstrip("/") or name.rpartition("/")[2], md5) for name, md5 in wanted]
        if not files:
            raise self._untracked()
        return Listing(out.md5, tuple(self._file(name, md5) for name, md5 in files))

    def open(self, file: RemoteFile, offset: int) -> AbstractContextManager[Pieces]:
        """The bytes of a file, from this machine or from the bucket."""
        if self._bucket is not None and not file.place.startswith("/"):
            return self._bucket.open(file, offset)
        return FolderRemote(Path(file.place), self._uri).open(file, offset)

    def close(self) -> None:
        """Nothing is kept open."""

    def _tracked(self, root: Path) -> tuple[Out, str]:
        """The output that holds the path, and the path below it."""
        for above in [self._path, *self._path.parents]:
            if above == root:
                break
            for file in (above.with_name(above.name + ".dvc"), above.parent / "dvc.lock"):
                if not file.is_file():
                    continue
                for out in outs_of(_text(file), str(file.relative_to(root))):
                    if (file.parent / PurePosixPath(out.path)) == above:
                        return out, self._path.relative_to(above).as_posix().removeprefix(".")
        # A stage may be described further up than its output lies.
        for file in sorted({above / "dvc.lock" for above in self._path.parents if above.is_relative_to(root)}):
            for out in outs_of(_text(file), str(file.relative_to(root))) if file.is_file() else ():
                if self._path.is_relative_to(target := file.parent / PurePosixPath(out.path)):
                    return out, self._path.relative_to(target).as_posix().removeprefix(".")
        raise self._untracked()

    def _untracked(self) -> NotFound:
        fix = "run `dvc add`, or check out the commit that has it"
        return NotFound(f"{self._uri} is not tracked by DVC: {self._path}", field="source.uri", fix=fix)

    def _open_remote(self, root: Path, wanted: str | None) -> None:
        files = [file for name in ("config", "config.local") if (file := root / ".dvc" / name).is_file()]
        texts = [(_text(file), str(file.relative_to(root))) for file in files]
        try:
            name, options = remote_of(texts, wanted)
        except BadInput:
            if (root / _CACHE).is_dir():  # everything may be in the checkout's own cache
                return
            raise
        parts = urlsplit(options["url"])
        if parts.scheme == "s3":
            told = {_OPTIONS[key]: value for key, value in options.items() if key in _OPTIONS}
            self._bucket = self._make_bucket(options["url"], told)
        elif parts.scheme in {"", "file"}:
            # Relative ones begin at the folder of the configuration.
            self._folder = root / ".dvc" / (unquote(parts.path) if parts.scheme else options["url"])
        else:
            problem = f"DVC's remote {name!r} is at {parts.scheme}:, which is not read"
            raise Unsupported(problem, field="source.uri", fix="`dvc pull` there, and name the folder by file:")

    def _file(self, name: str, md5: str) -> RemoteFile:
        place, size = self._found(md5)
        return RemoteFile(name, size, place, Digest("md5", md5))

    def _found(self, md5: str) -> tuple[str, int]:
        """Where an object is and how large: the checkout's cache first, then the remote; DVC 3's layout, then 2's."""
        keys = [f"files/md5/{md5[:2]}/{md5[2:]}", f"{md5[:2]}/{md5[2:]}"]
        for path in self._local(keys):
            return str(path), path.stat().st_size
        for key in keys:
            with contextlib.suppress(NotFound):
                if self._bucket is not None:
                    return self._bucket.object_at(key)
        problem = f"{self._uri}: DVC's remote does not have {md5}"
        raise NotFound(problem, field="source.uri", fix="run `dvc push` where the file was added")

    def _local(self, keys: list[str]) -> Iterator[Path]:
        folders = [folder for folder in (self._root and self._root / _CACHE, self._folder) if folder is not None]
        return (folder / key for folder in folders for key in keys if (folder / key).is_file())

    def _read(self, md5: str) -> bytes:
        """An object of a few MiB, checked."""
        place, size = self._found(md5)
        if size > MAX_FILE_BYTES:
            fix = "track one model at a time"
            raise BadInput(f"{self._uri} lists over {MAX_FILE_BYTES} bytes of names", field="source.uri", fix=fix)
        with self.open(RemoteFile(md5, size, place), 0) as (_, pieces):
            data = b"".join(pieces)
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != md5.removesuffix(".dir"):
            fix = "remove the object from DVC's remote and push it again"
            raise BadInput(f"{self._uri}: DVC's object {md5} is damaged", field="source.uri", fix=fix)
        return data


def _text(file: Path) -> str:
    """A file of DVC, bounded."""
    if file.stat().st_size > MAX_FILE_BYTES:
        raise BadInput(f"is over {MAX_FILE_BYTES} bytes", field=str(file), fix="it is no file of DVC")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"is no text: {foreign_text(error)}", field=str(file), fix="it is no file of DVC") from error
