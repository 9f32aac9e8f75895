"""ArtifactStore: put and get bytes by content, in a folder or in S3; used by engines, jobs and the gateway.

The one invariant: an object is written under its SHA-256 only after all its bytes were hashed, and is never changed.
"""

import asyncio
import hashlib
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, S3Store, from_url

from serving.artifacts.keys import PROVENANCE, object_key
from serving.artifacts.provenance import Provenance
from serving.errors import EngineFailed, NotFound, foreign_text
from serving.protocol.artifact import ArtifactRef

_CHUNK_BYTES = 1 << 20


def hash_file(path: Path) -> tuple[str, int]:
    """SHA-256 (lower-case hex) and size in bytes of a file, read in 1 MiB pieces."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


class ArtifactStore:
    """Content-addressed store over a folder or an S3 bucket; may be pickled.

    Args:
        url: ``file:///absolute/folder`` or ``s3://bucket/prefix``; S3 credentials come from the standard AWS variables.
        cache: folder for local copies of remote objects; unused by a folder store.
    """

    def __init__(self, url: str, cache: Path) -> None:
        self.url = url
        self.cache = cache
        self._folder: Path | None = None
        self._store: ObjectStore
        if url.startswith("file://"):
            self._folder = Path(urlsplit(url).path)
            self._folder.mkdir(parents=True, exist_ok=True)
            self._store = LocalStore(prefix=self._folder)
        else:
            self._store = from_url(url)

    def __reduce__(self) -> tuple[object, ...]:
        """Replicas get the address and open the store themselves."""
        return ArtifactStore, (self.url, self.cache)

    async def put_bytes(self, data: bytes, *, media_type: str, name: str) -> ArtifactRef:
        """Store bytes; storing equal bytes twice is one object."""
        ref = ArtifactRef(
            sha256=hashlib.sha256(data).hexdigest(), media_type=media_type, size_bytes=len(data), name=name
        )
        if not await self.exists(ref):
            await self._guarded(obstore.put_async(self._store, object_key(ref.sha256), data))
        return ref

    async def put_file(self, path: Path, *, media_type: str, name: str | None = None) -> ArtifactRef:
        """Store a file's bytes; the file stays where it is."""
        sha256, size = await asyncio.to_thread(hash_file, path)
        ref = ArtifactRef(sha256=sha256, media_type=media_type, size_bytes=size, name=name or path.name)
        if not await self.exists(ref):
            if self._folder is not None:
                await asyncio.to_thread(_publish, path, self._folder / object_key(sha256))
            else:
                await self._guarded(obstore.put_async(self._store, object_key(sha256), path))
        return ref

    async def exists(self, ref: ArtifactRef) -> bool:
        """Whether the bytes are here."""
        try:
            await self.size_bytes(ref)
        except NotFound:
            return False
        return True

    async def size_bytes(self, ref: ArtifactRef) -> int:
        """How many bytes lie here, whatever the reference says; none of them is fetched. Raises :class:`NotFound`."""
        try:
            meta = await obstore.head_async(self._store, object_key(ref.sha256))
        except FileNotFoundError:
            raise _not_found(ref) from None
        except BaseError as error:
            raise _store_failed(error) from error
        return int(meta["size"])

    async def get_bytes(self, ref: ArtifactRef) -> bytes:
        """All bytes of an artifact; raises :class:`NotFound`."""
        try:
            answer = await obstore.get_async(self._store, object_key(ref.sha256))
            return bytes(await answer.bytes_async())
        except FileNotFoundError:
            raise _not_found(ref) from None
        except BaseError as error:
            raise _store_failed(error) from error

    async def local_path(self, ref: ArtifactRef) -> Path:
        """A readable file with the artifact's bytes, which the caller must not change; raises :class:`NotFound`."""
        if self._folder is not None:
            path = self._folder / object_key(ref.sha256)
            if not path.is_file():
                raise _not_found(ref)
            return path
        path = self.cache / object_key(ref.sha256)
        if not path.is_file():
            data = await self.get_bytes(ref)
            await asyncio.to_thread(_write_once, data, path)
        return path

    async def presign(self, ref: ArtifactRef, *, ttl_s: float) -> str | None:
        """A URL that fetches the bytes without credentials for ``ttl_s`` seconds; None for a folder store."""
        if not isinstance(self._store, S3Store):
            return None
        return str(await obstore.sign_async(self._store, "GET", object_key(ref.sha256), timedelta(seconds=ttl_s)))

    async def put_provenance(self, ref: ArtifactRef, record: Provenance) -> None:
        """Lay the record beside the bytes; one that is there already stays, since it tells of the first making."""
        key = object_key(ref.sha256, PROVENANCE)
        try:
            await obstore.put_async(self._store, key, record.to_json(), mode="create", use_multipart=False)
        except AlreadyExistsError:
            return
        except BaseError as error:
            raise _store_failed(error) from error

    async def provenance(self, ref: ArtifactRef) -> Provenance | None:
        """What made these bytes; None where nobody left a record."""
        try:
            answer = await obstore.get_async(self._store, object_key(ref.sha256, PROVENANCE))
            return Provenance.model_validate_json(bytes(await answer.bytes_async()))
        except FileNotFoundError:
            return None
        except BaseError as error:
            raise _store_failed(error) from error

    async def _guarded(self, call: object) -> None:
        try:
            await call  # type: ignore[misc]
        except BaseError as error:
            raise _store_failed(error) from error


def _publish(source: Path, target: Path) -> None:
    """Copy into the store so that the target appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as stream:
        temporary = Path(stream.name)
    try:
        shutil.copyfile(source, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _write_once(data: bytes, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as stream:
        stream.write(data)
    Path(stream.name).replace(target)


def _not_found(ref: ArtifactRef) -> NotFound:
    return NotFound(f"artifact {ref.name!r} ({ref.sha256[:12]}) is not in the store", fix="upload it again")


def _store_failed(error: Exception) -> EngineFailed:
    return EngineFailed(f"the artifact store failed: {foreign_text(error)}")
