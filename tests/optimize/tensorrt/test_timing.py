import json
import multiprocessing
from pathlib import Path

from optimize.tensorrt.flags import Target
from optimize.tensorrt.timing import TimingCache

H200 = Target("9.0", "NVIDIA H200", "10.13.2.6")


def merge(there: bytes, found: bytes) -> bytes:
    return json.dumps(sorted({*json.loads(there), *json.loads(found)})).encode()


def test_a_cache_is_named_by_capability_and_version(tmp_path: Path) -> None:
    assert TimingCache(tmp_path, H200).file.name == "timing-sm90-trt10.13.2.6.cache"
    assert TimingCache(tmp_path, H200).read() == b""


def test_what_others_wrote_meanwhile_is_kept(tmp_path: Path) -> None:
    cache = TimingCache(tmp_path / "new", H200)
    before = cache.read()
    cache.write(b'["a"]', before, merge)
    cache.write(b'["b"]', before, merge)
    assert cache.read() == b'["a", "b"]'
    assert sorted(path.suffix for path in cache.file.parent.iterdir()) == [".cache", ".lock"]


def test_a_cache_that_nobody_else_changed_is_replaced_without_merging(tmp_path: Path) -> None:
    cache = TimingCache(tmp_path, H200)
    cache.write(b'["a"]', b"", merge)
    cache.write(b"anything", b'["a"]', merge)
    assert cache.read() == b"anything"


def add(folder: Path, name: str) -> None:
    TimingCache(folder, H200).write(json.dumps([name]).encode(), b"never seen", merge)


def test_builds_side_by_side_lose_nothing(tmp_path: Path) -> None:
    """Every process merges under the lock, so that each name is in the end."""
    names = [f"kernel{index}" for index in range(6)]
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=add, args=(tmp_path, name)) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert json.loads(TimingCache(tmp_path, H200).read()) == names
