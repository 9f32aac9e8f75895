"""The cache with sources on this machine: used in place, copied, bounded, removed."""

import os
from pathlib import Path

import pytest

from serving.errors import BadInput, MissingDependency, NotFound, TooLarge
from serving.weights.cache import has_weights
from tests.serving.weights.models import FILES, PICKLE, cache, model, safetensors, write


def test_a_folder_is_used_where_it_lies(tmp_path: Path) -> None:
    write(tmp_path / "writer" / "weights", FILES)
    known = model(tmp_path, "file:weights")
    weights = cache(tmp_path)
    with weights.hold(known) as held:
        assert held.folder == tmp_path / "writer" / "weights"
        assert (held.revision, held.download_s) == (None, 0.0)
        assert len(held.digest) == 64
        assert weights.locate(known) == held.folder


def test_an_absolute_folder_and_one_file_may_be_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "elsewhere", FILES)
    assert cache(tmp_path).hold(model(tmp_path, f"file:{folder}")).folder == folder
    assert cache(tmp_path).hold(model(tmp_path, f"file://{folder}")).folder == folder
    held = cache(tmp_path).hold(model(tmp_path, f"file:{folder}/model.safetensors"))
    assert held.folder == folder
    assert [entry.name for entry in held.manifest.files] == ["model.safetensors"]


def test_a_digest_is_taken_once_and_again_when_the_file_changes(tmp_path: Path) -> None:
    folder = write(tmp_path / "writer" / "w", FILES)
    known, weights = model(tmp_path, "file:w"), cache(tmp_path)
    first = weights.hold(known).digest
    assert weights.hold(known).digest == first
    write(folder, {"config.json": b"[]"})
    os.utime(folder / "config.json", ns=(1, 1))
    assert weights.hold(known).digest != first


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        pytest.param({"model.safetensors": FILES["model.safetensors"][:-1]}, "is truncated", id="truncated"),
        pytest.param({"model.safetensors": b"\xff" * 16}, "no safetensors file", id="absurd header"),
        pytest.param({"pytorch_model.bin": PICKLE}, r"allow_pickles: \[pytorch_model.bin\]", id="a pickle by name"),
        pytest.param({"model.bin": PICKLE}, r"allow_pickles: \[model.bin\]", id="a pickle by content"),
        pytest.param({}, "none of the files wanted", id="nothing"),
    ],
)
def test_a_folder_that_is_not_fit_is_refused_in_one_line(tmp_path: Path, files: dict[str, bytes], problem: str) -> None:
    write(tmp_path / "writer" / "w", {".keep": b"", **files})
    with pytest.raises(BadInput, match=problem) as caught:
        cache(tmp_path).hold(model(tmp_path, "file:w"))
    assert "\n" not in str(caught.value)
    assert "writer" in str(caught.value)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"writer/model.yaml:source.uri: file:w is not there"):
        cache(tmp_path).hold(model(tmp_path, "file:w"))


def test_records_have_no_weights(tmp_path: Path) -> None:
    known = model(tmp_path, "builtin:clip")
    assert not has_weights(known)
    assert cache(tmp_path).locate(known) is None
    with pytest.raises(BadInput, match="nothing is fetched"):
        cache(tmp_path).hold(known)


def test_a_copy_is_made_when_the_card_or_the_settings_want_one(tmp_path: Path) -> None:
    source = write(tmp_path / "writer" / "w", FILES)
    for known, weights in (
        (model(tmp_path, "file:w", copied=True), cache(tmp_path)),
        (model(tmp_path, "file:w"), cache(tmp_path / "other", copy_folders=True)),
    ):
        assert weights.locate(known) is None
        with weights.hold(known) as held:
            assert held.folder.is_relative_to(weights.folder)
            assert {path.name: path.read_bytes() for path in held.folder.iterdir()} == FILES
            assert weights.locate(known) == held.folder
    assert {path.name for path in source.iterdir()} == set(FILES)


def test_the_digest_is_the_same_in_place_and_copied(tmp_path: Path) -> None:
    write(tmp_path / "writer" / "w", FILES)
    weights = cache(tmp_path)
    assert weights.hold(model(tmp_path, "file:w")).digest == weights.hold(model(tmp_path, "file:w", copied=True)).digest


def test_the_card_may_name_the_digest(tmp_path: Path) -> None:
    write(tmp_path / "writer" / "w", FILES)
    digest = cache(tmp_path).hold(model(tmp_path, "file:w")).digest
    for copied in (False, True):
        cache(tmp_path).hold(model(tmp_path, "file:w", sha256=digest, copied=copied)).close()
        with pytest.raises(BadInput, match="the card says 0000"):
            cache(tmp_path).hold(model(tmp_path, "file:w", sha256="0" * 64, copied=copied))


def test_the_longest_unused_goes_first_and_never_one_in_use(tmp_path: Path) -> None:
    size = sum(map(len, FILES.values()))
    weights = cache(tmp_path, cache_bytes=2 * size)
    known = [model(tmp_path, "file:w", name=name, copied=True) for name in "abc"]
    for one in known:
        write(one.folder / "w", FILES)
    used = weights.hold(known[0])
    weights.hold(known[1]).close()
    weights.hold(known[2]).close()
    assert [weights.locate(one) is not None for one in known] == [True, False, True]
    used.close()
    assert [one.size_bytes for one in weights.collect(0, dry_run=True)] == [size, size]
    assert weights.size_bytes() == 2 * size
    weights.collect(0)
    assert weights.size_bytes() == 0


def test_what_does_not_fit_beside_weights_in_use_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    size = sum(map(len, FILES.values()))
    weights = cache(tmp_path, cache_bytes=size)
    known = [model(tmp_path, "file:w", name=name, copied=True) for name in "ab"]
    for one in known:
        write(one.folder / "w", FILES)
    with weights.hold(known[0]), pytest.raises(TooLarge, match=f"{size} bytes in it are in use"):
        weights.hold(known[1])
    with pytest.raises(TooLarge, match="raise it, or take fewer files"):
        cache(tmp_path, cache_bytes=1).hold(known[1])


def test_offline_uses_what_is_cached_and_says_how_to_get_the_rest(tmp_path: Path) -> None:
    weights = cache(tmp_path, offline=True)
    with pytest.raises(MissingDependency, match="reelmesh models pull writer"):
        weights.hold(model(tmp_path, "hf:studio/writer"))
    write(tmp_path / "writer" / "w", FILES)
    weights.hold(model(tmp_path, "file:w")).close()


def test_shards_that_are_missing_are_named(tmp_path: Path) -> None:
    index = b'{"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}'
    write(tmp_path / "writer" / "w", {"m-1.safetensors": safetensors({"a": (2,)}), "m.safetensors.index.json": index})
    with pytest.raises(BadInput, match=r"1 of its 2 shards are missing, first m-2.safetensors"):
        cache(tmp_path).hold(model(tmp_path, "file:w"))


def test_verify_reads_a_folder_that_is_used_in_place_to_its_last_byte(tmp_path: Path) -> None:
    folder = write(tmp_path / "writer" / "w", FILES)
    known, weights = model(tmp_path, "file:w"), cache(tmp_path)
    weights.hold(known).close()
    assert weights.verify(known) == []
    path = folder / "model.safetensors"
    before = path.stat()
    with path.open("r+b") as stream:  # as a disk spoils it: the time of change stays
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\xff")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    (problem,) = weights.verify(known)
    assert "model.safetensors: has digest" in problem


def test_a_removal_that_was_killed_half_way_does_not_stop_the_next_one(tmp_path: Path) -> None:
    write(tmp_path / "writer" / "w", FILES)
    known, weights = model(tmp_path, "file:w", copied=True), cache(tmp_path)
    with weights.hold(known) as held:
        snapshot = held.folder.parent
    write(snapshot.parent.parent / f"removing-{snapshot.name}", {"files/left": b"1"})
    assert weights.discard(known)
    assert weights.locate(known) is None
    assert not list((tmp_path / "home" / "weights").glob("*/removing-*"))
