import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from serving.artifacts import cache as module
from serving.artifacts.cache import PARTIAL, LocalCache, in_use


@pytest.fixture
def cache(tmp_path: Path) -> LocalCache:
    return LocalCache(tmp_path, limit_bytes=25)


def lay(cache: LocalCache, name: str, used_at: float) -> Path:
    path = cache.folder / name[:2] / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"0123456789")
    os.utime(path, (used_at, used_at))
    return path


def names(cache: LocalCache) -> set[str]:
    return {path.name for path in cache.folder.glob("??/*")}


def test_the_copy_used_longest_ago_goes_first(cache: LocalCache) -> None:
    for used_at, name in enumerate(["aa1", "bb2", "cc3"]):
        lay(cache, name, used_at)
    with in_use():
        cache.take("aa/aa1")
    cache.make_room()
    assert names(cache) == {"aa1", "cc3"}


def test_a_copy_in_use_stays_above_the_bound_and_goes_afterwards(cache: LocalCache) -> None:
    for used_at, name in enumerate(["aa1", "bb2", "cc3"]):
        lay(cache, name, used_at)
    with in_use():
        taken = [cache.take(f"{name[:2]}/{name}") for name in ("aa1", "bb2", "cc3")]
        cache.make_room()
        assert all(path is not None and path.exists() for path in taken)
    cache.make_room()
    assert len(names(cache)) == 2


def test_what_is_not_there_is_none(cache: LocalCache) -> None:
    assert cache.take("aa/aa1") is None


def test_without_an_end_a_copy_counts_as_used_for_a_while(cache: LocalCache, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lay(cache, "aa1", 0)
    for name in ("bb2", "cc3"):
        lay(cache, name, 100)
    cache.take("aa/aa1")
    os.utime(path, (0, 0))
    cache.make_room()
    assert names(cache) == {"aa1", "cc3"}
    monkeypatch.setattr(module, "HOLD_S", -1.0)
    cache.take("cc/cc3")
    lay(cache, "dd4", 200)
    cache.make_room()
    assert "aa1" not in names(cache)


def test_downloads_of_dead_processes_are_swept_away(cache: LocalCache) -> None:
    lay(cache, f"aa{PARTIAL}", 0).rename(cache.folder / "aa" / f"{PARTIAL}old")
    os.utime(cache.folder / "aa" / f"{PARTIAL}old", (0, 0))
    (cache.folder / "aa" / f"{PARTIAL}new").write_bytes(b"0" * 100)
    cache.make_room()
    assert names(cache) == {f"{PARTIAL}new"}


def _use_elsewhere(folder: Path, pipe: Connection) -> None:
    with in_use():
        LocalCache(folder, 0).take("aa/aa1")
        pipe.send("taken")
        pipe.recv()


def test_what_another_process_uses_stays(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path, limit_bytes=0)
    lay(cache, "aa1", 0)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_use_elsewhere, args=(tmp_path, theirs))
    process.start()
    ours.recv()
    cache.make_room()
    assert names(cache) == {"aa1"}
    ours.send("done")
    process.join()
    cache.make_room()
    assert names(cache) == set()
