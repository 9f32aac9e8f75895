"""The store against a real S3 server (moto's, over HTTP)."""

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.artifacts.cache import in_use
from serving.artifacts.keys import object_key
from serving.artifacts.provenance import Provenance
from serving.artifacts.retention import Needs, digest, look, sweep
from serving.artifacts.store import ArtifactStore
from serving.errors import EngineFailed, NotFound
from serving.protocol.artifact import ArtifactRef
from serving.settings import ArtifactSettings

DATA = b"frames " * 1000
URL = "s3://studio/artifacts"


@pytest.fixture
def s3(bucket: Any, tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(URL, tmp_path / "cache")


def key_of(ref: ArtifactRef) -> str:
    return f"artifacts/{object_key(ref.sha256)}"


async def test_bytes_come_back_under_their_hash(s3: ArtifactStore) -> None:
    ref = await s3.put_bytes(DATA, media_type="video/mp4", name="clip.mp4")
    assert ref.sha256 == hashlib.sha256(DATA).hexdigest()
    assert await s3.exists(ref)
    assert await s3.get_bytes(ref) == DATA
    assert await s3.put_bytes(DATA, media_type="video/mp4", name="clip.mp4") == ref


async def test_a_file_goes_up_and_comes_down_into_the_cache(s3: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(DATA)
    ref = await s3.put_file(tmp_path / "clip.mp4", media_type="video/mp4")
    local = await s3.local_path(ref)
    assert local.read_bytes() == DATA
    assert local.is_relative_to(tmp_path / "cache")


async def test_a_presigned_address_needs_no_credentials(s3: ArtifactStore) -> None:
    ref = await s3.put_bytes(DATA, media_type="video/mp4", name="clip.mp4")
    url = await s3.presign(ref, ttl_s=60)
    assert url is not None
    async with httpx.AsyncClient() as client:
        assert (await client.get(url)).content == DATA


async def test_what_is_not_there_is_not_found(s3: ArtifactStore) -> None:
    ref = ArtifactRef(sha256="0" * 64, size_bytes=1)
    assert not await s3.exists(ref)
    with pytest.raises(NotFound, match="upload it again"):
        await s3.local_path(ref)


async def test_provenance_lies_beside_the_bytes_and_is_not_overwritten(s3: ArtifactStore) -> None:
    ref = await s3.put_bytes(DATA, media_type="video/mp4", name="clip.mp4")
    first = Provenance(source="upload", sha256=ref.sha256, size_bytes=ref.size_bytes, made_at=1, software_version="1")
    await s3.put_provenance(ref, first)
    await s3.put_provenance(ref, first.model_copy(update={"made_at": 2.0}))
    assert await s3.provenance(ref) == first


async def test_a_large_file_goes_up_in_parts_and_comes_back_whole(bucket: Any, tmp_path: Path) -> None:
    store = ArtifactStore(URL, tmp_path / "cache", ArtifactSettings(part_bytes=5 << 20))
    (tmp_path / "film.mp4").write_bytes(os.urandom(1 << 20) * 11)
    ref = await store.put_file(tmp_path / "film.mp4", media_type="video/mp4")
    assert bucket.head_object(Bucket="studio", Key=key_of(ref))["ETag"].endswith('-3"')
    local = await store.local_path(ref)
    assert local.read_bytes() == (tmp_path / "film.mp4").read_bytes()
    assert [path.name for path in local.parent.iterdir()] == [ref.sha256]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        pytest.param({}, (None, None), id="what the bucket does"),
        pytest.param({"encryption": "AES256"}, ("AES256", None), id="AES256"),
        pytest.param({"encryption": "aws:kms", "kms_key_id": "alias/studio"}, ("aws:kms", "alias/studio"), id="kms"),
    ],
)
async def test_objects_are_encrypted_as_the_settings_say(
    bucket: Any, tmp_path: Path, options: dict[str, Any], told: tuple[str, str | None]
) -> None:
    store = ArtifactStore(URL, tmp_path / "cache", ArtifactSettings(part_bytes=5 << 20, **options))
    (tmp_path / "film.mp4").write_bytes(b"0" * (6 << 20))
    small = await store.put_bytes(DATA, media_type="video/mp4", name="clip.mp4")
    large = await store.put_file(tmp_path / "film.mp4", media_type="video/mp4")
    for ref in (small, large):
        head = bucket.head_object(Bucket="studio", Key=key_of(ref))
        assert (head.get("ServerSideEncryption"), head.get("SSEKMSKeyId")) == told
    assert await store.get_bytes(small) == DATA


async def test_a_versioned_bucket_holds_one_version_however_often_the_bytes_are_put(
    bucket: Any, s3: ArtifactStore
) -> None:
    bucket.put_bucket_versioning(Bucket="studio", VersioningConfiguration={"Status": "Enabled"})
    for _ in range(3):
        ref = await s3.put_bytes(DATA, media_type="video/mp4", name="clip.mp4")
    await s3.objects.create(object_key(ref.sha256), b"other bytes")
    assert await s3.get_bytes(ref) == DATA
    listed = bucket.list_object_versions(Bucket="studio", Prefix=key_of(ref))
    assert len(listed["Versions"]) == 1
    await s3.objects.remove(object_key(ref.sha256))
    assert not await s3.exists(ref)
    listed = bucket.list_object_versions(Bucket="studio", Prefix=key_of(ref))
    assert (len(listed["Versions"]), len(listed["DeleteMarkers"])) == (1, 1)
    await s3.put_bytes(DATA, media_type="video/mp4", name="clip.mp4")
    assert await s3.get_bytes(ref) == DATA


async def test_bytes_that_were_changed_in_the_bucket_are_refused(bucket: Any, s3: ArtifactStore) -> None:
    ref = await s3.put_bytes(DATA, media_type="video/mp4", name="clip.mp4")
    bucket.put_object(Bucket="studio", Key=key_of(ref), Body=b"swapped")
    for ask in (s3.get_bytes, s3.local_path):
        with pytest.raises(EngineFailed, match="other bytes for"):
            await ask(ref)
    assert not [path for path in s3.cache.rglob("*") if path.is_file()]


async def test_a_presigned_address_ends_when_the_settings_say(bucket: Any, tmp_path: Path) -> None:
    store = ArtifactStore(URL, tmp_path / "cache", ArtifactSettings(presigned_s=90))
    ref = await store.put_bytes(DATA, media_type="video/mp4", name="clip.mp4")
    url = await store.presign(ref)
    assert url is not None
    assert httpx.URL(url).params["X-Amz-Expires"] == "90"


async def test_the_copy_used_longest_ago_makes_room(bucket: Any, tmp_path: Path) -> None:
    store = ArtifactStore(URL, tmp_path / "cache", ArtifactSettings(cache_bytes=2 * len(DATA)))
    refs = [await store.put_bytes(DATA + bytes([index]), media_type="video/mp4", name="c") for index in range(3)]
    for ref in refs:
        with in_use():
            await store.local_path(ref)
    assert {path.name for path in store.cache.glob("??/*")} == {refs[2].sha256}
    assert (await store.local_path(refs[0])).read_bytes() == DATA + b"\0"


async def test_a_server_without_conditional_writes_is_asked_first(
    bucket: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")
    store = ArtifactStore(URL, tmp_path / "cache")
    ref = await store.put_bytes(DATA, media_type="video/mp4", name="clip.mp4")
    assert not await store.objects.create(object_key(ref.sha256), b"other bytes")
    assert await store.get_bytes(ref) == DATA


async def test_retention_works_in_a_bucket(s3: ArtifactStore) -> None:
    gone = await s3.put_bytes(DATA, media_type="video/mp4", name="clip.mp4")
    kept = await s3.put_bytes(b"kept", media_type="text/plain", name="kept.txt")
    await s3.put_provenance(gone, Provenance.of_upload(gone))
    needs = Needs({digest(kept.sha256)})
    for after_s, removed in ((0, []), (11, [gone.sha256])):
        now = time.time() + after_s
        swept = await sweep(s3.objects, await look(s3.objects), needs, now=now, grace_s=10)
        assert swept.removed == removed
    assert set((await look(s3.objects)).artifacts) == {kept.sha256}
    assert await s3.provenance(gone) is None
