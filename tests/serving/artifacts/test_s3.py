"""The store against a real S3 server (moto's, over HTTP)."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from moto.server import ThreadedMotoServer

from serving.artifacts.provenance import Provenance
from serving.artifacts.store import ArtifactStore
from serving.errors import NotFound
from serving.protocol.artifact import ArtifactRef

DATA = b"frames " * 1000


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ArtifactStore]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    httpx.put(f"http://{host}:{port}/studio").raise_for_status()
    yield ArtifactStore("s3://studio/artifacts", tmp_path / "cache")
    server.stop()


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
