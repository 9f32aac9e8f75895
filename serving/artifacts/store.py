"""ArtifactStore: put and get bytes by content, in a folder or in S3; used by engines, jobs and the gateway.

The one invariant: an object is written under its SHA-256 only after all its bytes were hashed, and is never changed;
whoever was told that it is here may rely on that for the time of grace (see serving.artifacts.marks).
"""

import asyncio
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from serving.artifacts.cache import PARTIAL, LocalCache
from serving.artifacts.keys import PROVENANCE, object_key
from serving.artifacts.marks import unmark
from serving.artifacts.objects import CHUNK_BYTES, Objects
from serving.artifacts.provenance import Provenance
from serving.errors import EngineFailed, NotFound
from serving.protocol.artifact import ArtifactRef
from serving.settings import ArtifactSettings, Settings

_DEFAULTS: Final = ArtifactSettings()
_ANY: Final = ArtifactRef(sha256="0" * 64, size_bytes=0)


def hash_file(path: Path) -> tuple[str, int]:
    """SHA-256 (lower-case hex) and size in bytes of a file, read in 1 MiB pieces."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


class ArtifactStore:
    """Content-addressed store over a folder or an S3 bucket; may be pickled.

    Args:
        url: ``file:///absolute/folder`` or ``s3://bucket/prefix``; S3 credentials come from the standard AWS variables.
        cache: folder for local copies of remote objects; unused by a folder store.
        options: encryption, parts, and the bound of the copies; for S3 alone.
    """

    def __init__(self, url: str, cache: Path, options: ArtifactSettings = _DEFAULTS) -> None:
        self.url = url
        self.cache = cache
        self.options = options
        self._folder = Path(urlsplit(url).path) if url.startswith("file://") else None
        self._copies = LocalCache(cache, options.cache_bytes)
        self.objects = Objects(url, options)

    @classmethod
    def of(cls, settings: Settings) -> "ArtifactStore":
        """The store of a mesh.

        Args:
            settings: resolved.
        """
        return cls(settings.artifacts_url, settings.home / "cache", settings.artifacts)

    def __reduce__(self) -> tuple[object, ...]:
        """Replicas get the address and open the store themselves."""
        return ArtifactStore, (self.url, self.cache, self.options)

    async def put_bytes(self, data: bytes, *, media_type: str, name: str) -> ArtifactRef:
        """Store bytes; storing equal bytes twice is one object."""
        ref = ArtifactRef(
            sha256=hashlib.sha256(data).hexdigest(), media_type=media_type, size_bytes=len(data), name=name
        )
        if not await self.exists(ref):
            await self.objects.create(object_key(ref.sha256), data)
        return ref

    async def put_file(self, path: Path, *, media_type: str, name: str | None = None) -> ArtifactRef:
        """Store a file's bytes; the file stays where it is."""
        sha256, size = await asyncio.to_thread(hash_file, path)
        ref = ArtifactRef(sha256=sha256, media_type=media_type, size_bytes=size, name=name or path.name)
        if not await self.exists(ref):
            if self._folder is not None:
                await asyncio.to_thread(_publish, path, self._folder / object_key(sha256))
            else:
                await self.objects.upload(object_key(sha256), path, size)
        return ref

    async def exists(self, ref: ArtifactRef) -> bool:
        """Whether the bytes are here; if so they stay for the time of grace at least."""
        try:
            await self.size_bytes(ref)
        except NotFound:
            return False
        return True

    async def size_bytes(self, ref: ArtifactRef) -> int:
        """How many bytes lie here, whatever the reference says; none of them is fetched.

        Whoever was told a size has the time of grace to write down, in the jobs database, who needs the bytes.

        Raises:
            NotFound: the store does not have them.
        """
        await unmark(self.objects, ref.sha256)
        size = await self.objects.size_bytes(object_key(ref.sha256))
        if size is None:
            raise _not_found(ref)
        return size

    async def get_bytes(self, ref: ArtifactRef) -> bytes:
        """All bytes of an artifact; raises :class:`NotFound`."""
        data = await self.objects.read(object_key(ref.sha256))
        if data is None:
            raise _not_found(ref)
        if self._folder is None:
            _check(ref, await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest()))
        return data

    async def local_path(self, ref: ArtifactRef) -> Path:
        """A readable file with the artifact's bytes, which the caller must not change; raises :class:`NotFound`.

        A copy of a remote object stays as long as serving.artifacts.cache says: to the end of an ``in_use`` block, or
        for a quarter of an hour.
        """
        key = object_key(ref.sha256)
        if self._folder is not None:
            path = self._folder / key
            if not path.is_file():
                raise _not_found(ref)
            return path
        while (copy := await asyncio.to_thread(self._copies.take, key)) is None:
            await self._download(ref, self.cache / key)
        return copy

    async def _download(self, ref: ArtifactRef, target: Path) -> None:
        """Fetch to the disk piece by piece; the copy appears once its digest was checked."""
        pieces = await self.objects.stream(object_key(ref.sha256))
        if pieces is None:
            raise _not_found(ref)
        await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=PARTIAL, delete=False) as stream:
            temporary = Path(stream.name)
            try:
                async for piece in pieces:
                    digest.update(piece)
                    await asyncio.to_thread(stream.write, piece)
                stream.flush()
                _check(ref, digest.hexdigest())
                temporary.replace(target)  # noqa: ASYNC240  a rename
            finally:
                temporary.unlink(missing_ok=True)  # noqa: ASYNC240  usually gone by then
        await asyncio.to_thread(self._copies.make_room)

    async def presign(self, ref: ArtifactRef, *, ttl_s: float | None = None) -> str | None:
        """A URL that fetches the bytes without credentials, by default for as long as the settings say.

        None for a folder store.
        """
        return await self.objects.presigned(object_key(ref.sha256), ttl_s or self.options.presigned_s)

    async def origin(self) -> str | None:
        """Scheme and host of presigned addresses; None for a folder store."""
        url = await self.presign(_ANY)
        return None if url is None else "{0.scheme}://{0.netloc}".format(urlsplit(url))

    async def put_provenance(self, ref: ArtifactRef, record: Provenance) -> None:
        """Lay the record beside the bytes; one that is there already stays, since it tells of the first making."""
        await self.objects.create(object_key(ref.sha256, PROVENANCE), record.to_json())

    async def provenance(self, ref: ArtifactRef) -> Provenance | None:
        """What made these bytes; None where nobody left a record."""
        data = await self.objects.read(object_key(ref.sha256, PROVENANCE))
        return None if data is None else Provenance.model_validate_json(data)


def _publish(source: Path, target: Path) -> None:
    """Copy into the store so that the target appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=PARTIAL, delete=False) as stream:
        temporary = Path(stream.name)
    try:
        shutil.copyfile(source, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _check(ref: ArtifactRef, sha256: str) -> None:
    if sha256 != ref.sha256:
        raise EngineFailed(
            f"the store gave other bytes for {ref.name!r} than were put there: their digest is {sha256[:12]}, not "
            f"{ref.sha256[:12]}",
            fix="remove the object from the bucket and make it again",
        )


def _not_found(ref: ArtifactRef) -> NotFound:
    return NotFound(f"artifact {ref.name!r} ({ref.sha256[:12]}) is not in the store", fix="upload it again")
