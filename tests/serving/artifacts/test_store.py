from pathlib import Path

import pytest
from obstore.store import MemoryStore

from serving.artifacts.store import ArtifactStore
from serving.errors import NotFound
from serving.protocol.artifact import ArtifactRef

ABSENT = ArtifactRef(sha256="0" * 64, size_bytes=7)


@pytest.fixture(params=["folder", "remote"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    opened = ArtifactStore(f"file://{tmp_path}/store", tmp_path / "cache")
    if request.param == "remote":
        monkeypatch.setattr(opened, "_folder", None)
        monkeypatch.setattr(opened.objects, "store", MemoryStore())
    return opened


async def test_equal_bytes_are_one_object_that_every_way_out_gives_back(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"some bytes")
    ref = await store.put_file(tmp_path / "a.bin", media_type="application/octet-stream")
    again = await store.put_bytes(b"some bytes", media_type="text/plain", name="b.txt")
    assert (again.sha256, again.size_bytes) == (ref.sha256, 10)
    assert await store.get_bytes(ref) == b"some bytes"
    assert (await store.local_path(ref)).read_bytes() == b"some bytes"


async def test_the_size_is_told_without_fetching_and_whatever_the_reference_says(
    store: ArtifactStore, tmp_path: Path
) -> None:
    ref = await store.put_bytes(b"some bytes", media_type="text/plain", name="b.txt")
    assert await store.size_bytes(ref.model_copy(update={"size_bytes": 3})) == 10
    assert not (tmp_path / "cache").exists()


async def test_what_is_not_here_is_named(store: ArtifactStore) -> None:
    assert not await store.exists(ABSENT)
    for ask in (store.size_bytes, store.get_bytes, store.local_path):
        with pytest.raises(NotFound, match="000000000000"):
            await ask(ABSENT)
