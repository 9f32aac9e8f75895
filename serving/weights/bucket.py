"""BucketRemote: a prefix of an S3 bucket as a source, over obstore; made by weights.remotes.

The one invariant: bytes are read only of the very object that was listed (by its ETag), so what somebody uploads
meanwhile mixes with nothing.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import obstore
from obstore.exceptions import (
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import from_url

from serving.errors import BadInput, Forbidden, NotFound, ReelmeshError, Unavailable, foreign_text
from serving.weights.remote import MAX_FILES, Listing, Pieces, RemoteFile

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, ObjectMeta  # exist for type checkers alone
    from obstore.store import ObjectStore

_PIECE_BYTES: Final = 1 << 20
_LISTED_AT_A_TIME: Final = 1000


class BucketRemote:
    """One prefix.

    Args:
        url: ``s3://bucket/prefix``; the prefix may be one object's key.
        timeout_s: on connecting, and on silence.
        request_s: longest that one request may take, its bytes included.
        options: endpoint, region, credentials where they are not the environment's.
    """

    def __init__(self, url: str, *, timeout_s: float, request_s: float, options: dict[str, Any] | None = None) -> None:
        self._url = url.rstrip("/")
        bucket, _, self._prefix = self._url.removeprefix("s3://").partition("/")
        self.store: ObjectStore = from_url(
            f"s3://{bucket}",
            client_options={
                "connect_timeout": f"{timeout_s}s",
                "read_timeout": f"{timeout_s}s",
                "timeout": f"{request_s}s",
                # The endpoint's own scheme decides; without one it is AWS by https.
                "allow_http": True,
            },
            # One try: the download has its own, with the bounds of the settings.
            retry_config={"max_retries": 1, "retry_timeout": timedelta(seconds=timeout_s)},
            **(options or {}),
        )

    def listing(self) -> Listing:
        """Every object below the prefix, or the one of that key; the revision is a digest over keys and ETags."""
        files: list[RemoteFile] = []
        try:
            for page in obstore.list(self.store, prefix=self._prefix or None, chunk_size=_LISTED_AT_A_TIME):
                files += [_file(meta, self._prefix) for meta in page if not meta["path"].endswith("/")]
                if len(files) > MAX_FILES:
                    fix = "point source at the prefix of one model"
                    raise BadInput(f"{self._url} holds over {MAX_FILES} objects", field="source.uri", fix=fix)
            if not files and self._prefix:
                meta = obstore.head(self.store, self._prefix)
                files = [_file(meta, self._prefix.rpartition("/")[0])]
        except (BaseError, OSError) as error:
            raise problem(error, self._url) from error
        files.sort(key=lambda file: file.name)
        told = "".join(f"{file.name} {file.size_bytes} {file.version}\n" for file in files)
        return Listing(hashlib.sha256(told.encode()).hexdigest()[:40], tuple(files))

    def object_at(self, name: str) -> tuple[str, int]:
        """Key and size of the object of that name below the prefix; raises :class:`NotFound`."""
        key = f"{self._prefix}/{name}".lstrip("/")
        try:
            return key, int(obstore.head(self.store, key)["size"])
        except (BaseError, OSError) as error:
            raise problem(error, f"{self._url}/{name}") from error

    @contextlib.contextmanager
    def open(self, file: RemoteFile, offset: int) -> Iterator[Pieces]:
        """The bytes of an object from an offset on, of the version that was listed."""
        options: GetOptions = {"range": {"offset": offset}} if offset else {}
        if file.version:
            options["if_match"] = file.version
        try:
            answer = obstore.get(self.store, file.place, options=options)
        except (BaseError, OSError) as error:
            raise problem(error, f"{self._url}/{file.name}") from error
        yield Pieces(answer.range[0], _pieces(answer, file.place))

    def close(self) -> None:
        """The store closes by itself."""


def _pieces(answer: "GetResult", place: str) -> Iterator[bytes]:
    try:
        for piece in answer.stream(min_chunk_size=_PIECE_BYTES):
            yield bytes(piece)
    except (BaseError, OSError) as error:
        raise Unavailable(f"the bucket cut off {place}: {foreign_text(error)}") from error


def _file(meta: "ObjectMeta", prefix: str) -> RemoteFile:
    key = str(meta["path"])
    name = key.removeprefix(prefix).lstrip("/") or key.rpartition("/")[2]
    return RemoteFile(name, int(meta["size"]), key, version=meta["e_tag"] or "")


def problem(error: Exception, url: str) -> ReelmeshError:
    """What the mesh says of a failure of the bucket."""
    match error:
        case FileNotFoundError():
            return NotFound(f"{url} is not there", field="source.uri", fix="correct the bucket or the prefix")
        case PermissionDeniedError() | UnauthenticatedError():
            fix = "give AWS credentials that may list and read it"
            return Forbidden(f"the bucket refuses {url}", field="source.uri", fix=fix)
        case PreconditionError():
            return BadInput(f"{url} was changed while it was fetched", field="source.uri", fix="pull again")
    return Unavailable(f"the bucket of {url} failed: {foreign_text(error)}")
