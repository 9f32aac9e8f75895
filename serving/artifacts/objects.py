"""Objects: the few operations of a folder or S3 bucket that the store and retention need, over obstore.

The one invariant: nothing here overwrites an object that is there; what is not there is None or False, and any other
failure is an :class:`EngineFailed`.
"""

from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError
from obstore.store import LocalStore, ObjectStore, S3Store, from_url

from serving.errors import EngineFailed, foreign_text
from serving.settings import ArtifactSettings

if TYPE_CHECKING:
    from obstore import GetResult  # exists for type checkers alone

T = TypeVar("T")

CHUNK_BYTES: Final = 1 << 20
_PARTS_AT_A_TIME: Final = 4
_MAX_PARTS: Final = 9_000
"""S3 takes 10,000 parts; what would need more goes up in larger ones."""
_LISTED_AT_A_TIME: Final = 1_000


@dataclass(frozen=True, slots=True)
class Listed:
    """An object of a listing: its key, its size in bytes, and when it was written in Unix seconds."""

    key: str
    size_bytes: int
    written_at: float


class Objects:
    """One folder or bucket.

    Args:
        url: ``file:///absolute/folder`` or ``s3://bucket/prefix``.
        options: encryption and the size of parts; for S3 alone.
    """

    def __init__(self, url: str, options: ArtifactSettings) -> None:
        self._part_bytes = options.part_bytes
        self.store: ObjectStore
        if url.startswith("file://"):
            folder = Path(urlsplit(url).path)
            folder.mkdir(parents=True, exist_ok=True)
            self.store = LocalStore(prefix=folder)
        else:
            self.store = from_url(url, **(encryption(options) if url.startswith("s3") else {}))

    async def size_bytes(self, key: str) -> int | None:
        """How large the object is."""
        meta = await _unless_missing(obstore.head_async(self.store, key))
        return None if meta is None else int(meta["size"])

    async def read(self, key: str) -> bytes | None:
        """All its bytes."""
        answer = await _unless_missing(obstore.get_async(self.store, key))
        return None if answer is None else bytes(await _guarded(answer.bytes_async()))

    async def stream(self, key: str) -> AsyncIterator[bytes] | None:
        """Its bytes piece by piece, none larger than S3 sends them, about 1 MiB."""
        answer = await _unless_missing(obstore.get_async(self.store, key))
        return None if answer is None else _pieces(answer)

    async def create(self, key: str, data: bytes) -> bool:
        """Write an object in one go; False, and nothing changes, when it is there already."""
        try:
            await obstore.put_async(self.store, key, data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        except (NotSupportedError, RuntimeError):  # what obstore says with AWS_CONDITIONAL_PUT=disabled
            if await self.size_bytes(key) is not None:
                return False
            await _guarded(obstore.put_async(self.store, key, data, use_multipart=False))
        except BaseError as error:
            raise store_failed(error) from error
        return True

    async def upload(self, key: str, path: Path, size_bytes: int) -> None:
        """Write a file's bytes, in parts when it is large; at most four parts are in memory.

        The parts become one object in the end or none; S3 knows no condition for them, so two that upload the same
        bytes at the same moment write them twice.
        """
        if size_bytes <= self._part_bytes:
            await self.create(key, path.read_bytes())  # noqa: ASYNC240  at most one part
            return
        part = part_bytes(size_bytes, self._part_bytes)
        call = obstore.put_async(
            self.store, key, path, use_multipart=True, chunk_size=part, max_concurrency=_PARTS_AT_A_TIME
        )
        await _guarded(call)

    async def remove(self, key: str) -> None:
        """Remove the object, if it is there; in a versioned bucket its versions stay until the bucket's rules end."""
        await _unless_missing(obstore.delete_async(self.store, key))

    async def listed(self) -> AsyncIterator[Listed]:
        """Every object there is."""
        pages = obstore.list(self.store, chunk_size=_LISTED_AT_A_TIME)
        try:
            async for page in pages:
                for meta in page:
                    yield Listed(meta["path"], meta["size"], meta["last_modified"].timestamp())
        except BaseError as error:
            raise store_failed(error) from error

    async def presigned(self, key: str, ttl_s: float) -> str | None:
        """An address that needs no credentials; None where the store has none."""
        if not isinstance(self.store, S3Store):
            return None
        return str(await _guarded(obstore.sign_async(self.store, "GET", key, timedelta(seconds=ttl_s))))


def encryption(options: ArtifactSettings) -> dict[str, Any]:
    """What obstore is told for server-side encryption; none when the bucket decides."""
    if options.encryption == "bucket":
        return {}
    key = {"sse_kms_key_id": options.kms_key_id} if options.kms_key_id and options.encryption == "aws:kms" else {}
    return {"server_side_encryption": options.encryption, **key}


def part_bytes(size_bytes: int, wanted: int) -> int:
    """The size of parts: as wanted, or larger where there would be too many."""
    return max(wanted, -(-size_bytes // _MAX_PARTS))


async def _pieces(answer: "GetResult") -> AsyncIterator[bytes]:
    try:
        async for piece in answer.stream(min_chunk_size=CHUNK_BYTES):
            yield bytes(piece)
    except BaseError as error:
        raise store_failed(error) from error


async def _guarded(call: Awaitable[T]) -> T:
    try:
        return await call
    except (BaseError, OSError) as error:
        raise store_failed(error) from error


async def _unless_missing(call: Awaitable[T]) -> T | None:
    try:
        return await call
    except FileNotFoundError:
        return None
    except BaseError as error:
        raise store_failed(error) from error


def store_failed(error: Exception) -> EngineFailed:
    """What the mesh says of a failure of the folder or the bucket."""
    return EngineFailed(f"the artifact store failed: {foreign_text(error)}")
