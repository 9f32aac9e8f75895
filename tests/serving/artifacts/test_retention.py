import os
import time
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from serving.artifacts.cache import PARTIAL
from serving.artifacts.keys import EXPIRING, REMOVING, object_key
from serving.artifacts.marks import Mark
from serving.artifacts.provenance import Provenance
from serving.artifacts.retention import SKEW_S, Needs, abandon_removals, digest, is_due, look, sweep
from serving.artifacts.store import ArtifactStore
from serving.protocol.artifact import ArtifactRef

GRACE_S = 100.0


@pytest.fixture(params=["folder", "remote"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactStore:
    opened = ArtifactStore(f"file://{tmp_path}/store", tmp_path / "cache")
    if request.param == "remote":
        monkeypatch.setattr(opened, "_folder", None)
        monkeypatch.setattr(opened.objects, "store", MemoryStore())
    return opened


async def put(store: ArtifactStore, data: bytes) -> ArtifactRef:
    ref = await store.put_bytes(data, media_type="text/plain", name="a.txt")
    await store.put_provenance(ref, Provenance.of_upload(ref))
    return ref


async def swept(
    store: ArtifactStore, *needed: ArtifactRef, after_s: float = 0.0, start: float | None = None
) -> list[str]:
    needs = Needs({digest(ref.sha256) for ref in needed})
    now = time.time() + after_s
    return (await sweep(store.objects, await look(store.objects), needs, now=now, grace_s=GRACE_S)).removed


async def test_what_nobody_needs_goes_a_time_of_grace_later_with_all_that_lies_beside_it(store: ArtifactStore) -> None:
    gone, kept = await put(store, b"gone"), await put(store, b"kept")
    assert await swept(store, kept) == []
    assert await swept(store, kept, after_s=GRACE_S - 1) == []
    assert await swept(store, kept, after_s=GRACE_S + 1) == [gone.sha256]
    assert not await store.exists(gone)
    assert await store.provenance(gone) is None
    assert await store.get_bytes(kept) == b"kept"
    assert set((await look(store.objects)).artifacts) == {kept.sha256}


async def test_who_asks_for_marked_bytes_has_another_time_of_grace(store: ArtifactStore) -> None:
    ref = await put(store, b"some bytes")
    await swept(store)
    assert await store.exists(ref)
    assert await swept(store, after_s=GRACE_S + 1) == []
    assert await swept(store, after_s=2 * GRACE_S + 1) == [ref.sha256]


async def test_putting_marked_bytes_again_keeps_them(store: ArtifactStore) -> None:
    await put(store, b"some bytes")
    await swept(store)
    ref = await put(store, b"some bytes")
    assert await swept(store, after_s=GRACE_S + 1) == []
    assert await store.get_bytes(ref) == b"some bytes"


async def test_what_is_needed_again_loses_its_mark(store: ArtifactStore) -> None:
    ref = await put(store, b"some bytes")
    await swept(store)
    assert await swept(store, ref, after_s=GRACE_S + 1) == []
    assert not (await look(store.objects)).artifacts[ref.sha256].marked


async def test_a_dry_run_tells_and_changes_nothing(store: ArtifactStore) -> None:
    ref = await put(store, b"some bytes")
    now = time.time()
    told = await sweep(store.objects, await look(store.objects), Needs([]), now=now, grace_s=GRACE_S, dry_run=True)
    assert told.marked == [ref.sha256]
    assert not (await look(store.objects)).artifacts[ref.sha256].marked
    await swept(store)
    later = now + GRACE_S + 1
    told = await sweep(store.objects, await look(store.objects), Needs([]), now=later, grace_s=GRACE_S, dry_run=True)
    assert (told.removed, told.removed_bytes) == ([ref.sha256], 10)
    assert await store.exists(ref)


@pytest.mark.parametrize(
    ("now", "start", "due"),
    [
        pytest.param(1000 + GRACE_S - 1, None, False, id="within the time of grace"),
        pytest.param(1000 + GRACE_S, None, True, id="after it, and nothing runs"),
        pytest.param(5000, 900, False, id="a job runs that began before the mark"),
        pytest.param(5000, 1000 + SKEW_S, False, id="or about when it was made"),
        pytest.param(5000, 1000 + SKEW_S + 1, True, id="all that run began after it"),
    ],
)
def test_marked_bytes_wait_for_the_jobs_that_may_have_heard_of_them(now: float, start: float | None, due: bool) -> None:
    assert is_due(Mark(1000.0, "t"), Needs([], start), now=now, grace_s=GRACE_S) is due


async def test_what_a_dead_keeper_left_is_taken_away(store: ArtifactStore) -> None:
    ref = await put(store, b"some bytes")
    await store.objects.create(object_key(ref.sha256, REMOVING), b"")
    await abandon_removals(store.objects, await look(store.objects))
    assert (await look(store.objects)).removing == []
    assert await store.exists(ref)


async def test_strange_files_in_the_store_are_left_alone(store: ArtifactStore) -> None:
    await store.objects.create("notes/readme.md", b"mine")
    await store.objects.create(object_key("a" * 64, EXPIRING) + ".bak", b"mine")
    await swept(store)
    await swept(store, after_s=GRACE_S + 1)
    assert await store.objects.read("notes/readme.md") == b"mine"


async def test_files_that_nobody_finished_go_after_a_day(tmp_path: Path) -> None:
    store = ArtifactStore(f"file://{tmp_path}/store", tmp_path / "cache")
    for name in ("old", "new"):
        await store.objects.create(f"aa/{PARTIAL}{name}", b"half")
    os.utime(tmp_path / "store" / "aa" / f"{PARTIAL}old", (0, 0))
    await abandon_removals(store.objects, await look(store.objects))
    assert [path.name for path in (tmp_path / "store" / "aa").iterdir()] == [f"{PARTIAL}new"]
