"""Snapshots on the disk: what a crash leaves, and what gc takes."""

import os
import time
from pathlib import Path

from serving.weights.locks import fetching
from serving.weights.snapshots import ABANDONED_S, collect, find, snapshots_in
from tests.serving.weights.models import FILES, cache, model, write


def test_a_snapshot_whose_manifest_cannot_be_read_is_made_again(tmp_path: Path) -> None:
    write(tmp_path / "writer" / "w", FILES)
    weights, known = cache(tmp_path), model(tmp_path, "file:w", copied=True)
    weights.hold(known).close()
    (manifest,) = weights.folder.glob("*/snapshots/*/manifest.json")
    manifest.write_text("{")
    assert weights.locate(known) is None
    with weights.hold(known) as held:
        assert {path.name for path in held.folder.iterdir()} == set(FILES)


def test_a_cache_that_cannot_be_written_is_used_all_the_same(tmp_path: Path) -> None:
    write(tmp_path / "writer" / "w", FILES)
    weights, known = cache(tmp_path), model(tmp_path, "file:w", copied=True)
    weights.hold(known).close()
    (key,) = (path.parent for path in weights.folder.glob("*/snapshots"))
    (snapshot,) = snapshots_in(key)
    assert find(key, None) == snapshot
    (snapshot.path / "in-use").chmod(0o444)
    weights.hold(known).close()


def test_unfinished_fetches_go_when_nobody_went_on_with_them(tmp_path: Path) -> None:
    old = write(tmp_path / "a", {"lock": b"", "partial/1/files/m.part": b"12345"})
    write(tmp_path / "b", {"lock": b"", "partial/2/files/m.part": b"12345"})
    write(tmp_path / "c", {"lock": b"", "removing-3/files/m": b"123"})
    then = time.time() - ABANDONED_S - 60
    for path in [*old.rglob("*"), old]:
        os.utime(path, (then, then))
    assert [one.size_bytes for one in collect(tmp_path, 5, dry_run=True)] == [5]
    assert sorted(one.size_bytes for one in collect(tmp_path, 5)) == [3, 5]
    assert [path.name for path in tmp_path.glob("*/partial/*")] == ["2"]
    assert not list(tmp_path.glob("*/removing-*"))


def test_unfinished_fetches_count_and_go_before_what_is_whole(tmp_path: Path) -> None:
    write(tmp_path / "writer" / "w", FILES)
    weights = cache(tmp_path)
    weights.hold(model(tmp_path, "file:w", copied=True)).close()
    whole = weights.size_bytes()
    for number, key in enumerate(("older", "newer", "going on")):
        partial = write(weights.folder / key / "partial" / "x", {"files/model.safetensors.part": bytes(1000)})
        (weights.folder / key / "lock").touch()
        for path in [partial, *partial.rglob("*")]:
            os.utime(path, (time.time() - 100 + number,) * 2)
    with fetching(weights.folder / "going on" / "lock", 1, str):
        assert weights.size_bytes() == whole + 2000
        told = weights.collect(whole + 1500, dry_run=True)
        assert weights.collect(whole + 1500) == told
        assert [(one.uri, one.size_bytes) for one in told] == [("unfinished: older", 1000)]
        assert [one.uri for one in weights.collect(0)] == ["unfinished: newer", "file:w"]
        assert weights.size_bytes() == 0
        assert (weights.folder / "going on" / "partial" / "x").is_dir()
