"""Fetching that does not go well: cut, damaged, killed, raced, and with no room on the disk."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from serving.errors import BadInput, DeadlineExceeded, Unavailable
from serving.weights.cache import WeightsCache
from serving.weights.progress import Progress
from tests.serving.weights.hub_server import COMMIT, Hub
from tests.serving.weights.models import FILES, QUICK, cache, model, safetensors

NAME = "studio/writer"
URI = f"hf:{NAME}"
LARGE = {"model.safetensors": safetensors({"a": (3 << 20,)}, fill=7)}
SIZE = len(LARGE["model.safetensors"])
CHILD = """
import sys
from pathlib import Path
from tests.serving.weights.models import cache, model
folder, url, extra = Path(sys.argv[1]), sys.argv[2], eval(sys.argv[3])
if "limit" in extra:
    import resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (extra["limit"], extra["limit"]))
try:
    with cache(folder, hub_url=url).hold(model(folder, "hf:studio/writer")) as held:
        print(held.revision, held.download_s > 0, flush=True)
except Exception as error:
    print(type(error).__name__, error, flush=True)
"""


def child(folder: Path, hub: Hub, extra: str = "{}") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(folder), hub.url, extra]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def ranges(hub: Hub) -> list[str | None]:
    return [asked for _, asked, _ in hub.asked]


def left(weights: WeightsCache) -> list[str]:
    """Files of unfinished fetches."""
    return sorted(path.name for path in weights.folder.glob("*/partial/*/files/*"))


def test_a_connection_that_is_cut_goes_on_where_it_ended(hub: Hub, tmp_path: Path) -> None:
    hub.put(NAME, LARGE)
    hub.cuts["model.safetensors"] = [1000, 2000, 3000]
    with cache(tmp_path, hub_url=hub.url).hold(model(tmp_path, URI)) as held:
        assert (held.folder / "model.safetensors").read_bytes() == LARGE["model.safetensors"]
    assert ranges(hub) == [None, "bytes=1000-", "bytes=3000-", "bytes=6000-"]


def test_a_server_without_ranges_begins_again(hub: Hub, tmp_path: Path) -> None:
    hub.put(NAME, LARGE)
    hub.ranges, hub.cuts["model.safetensors"] = False, [1000]
    told: list[Progress] = []
    with cache(tmp_path, hub_url=hub.url).hold(model(tmp_path, URI), progress=told.append) as held:
        assert (held.folder / "model.safetensors").read_bytes() == LARGE["model.safetensors"]
    assert (told[-1].done_bytes, told[-1].total_bytes, told[-1].pid) == (SIZE, SIZE, os.getpid())


def test_a_server_that_gives_nothing_is_left_alone_after_so_many_tries(hub: Hub, tmp_path: Path) -> None:
    hub.put(NAME, LARGE)
    hub.cuts["model.safetensors"] = [1000, *[0] * 20]
    weights = cache(tmp_path, hub_url=hub.url)
    with pytest.raises(Unavailable, match=r"the hub cut off"):
        weights.hold(model(tmp_path, URI))
    assert len(hub.asked) == QUICK["tries"]
    assert left(weights) == ["model.safetensors.part"]
    assert weights.locate(model(tmp_path, URI)) is None
    hub.cuts.clear()
    weights.hold(model(tmp_path, URI)).close()
    assert ranges(hub)[-1] == "bytes=1000-"


def test_damaged_bytes_are_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.put(NAME, {**LARGE, "config.json": b"{}"})
    hub.damaged |= {"model.safetensors", "config.json"}
    with cache(tmp_path, hub_url=hub.url).hold(model(tmp_path, URI)) as held:
        assert (held.folder / "model.safetensors").read_bytes() == LARGE["model.safetensors"]
        assert (held.folder / "config.json").read_bytes() == b"{}"


def test_a_truncated_file_of_the_source_is_named_and_nothing_stays(hub: Hub, tmp_path: Path) -> None:
    hub.put(NAME, {"model.safetensors": LARGE["model.safetensors"][:-5]})
    weights = cache(tmp_path, hub_url=hub.url)
    with pytest.raises(BadInput, match=r"hf:studio/writer/model\.safetensors: is truncated"):
        weights.hold(model(tmp_path, URI))
    assert (left(weights), weights.size_bytes()) == ([], 0)


def test_a_fetch_ends_when_its_time_is_over_and_keeps_what_came(hub: Hub, tmp_path: Path) -> None:
    hub.put(NAME, LARGE)
    hub.waits_after = 1000
    weights = cache(tmp_path, hub_url=hub.url, pull_s=0.5, timeout_s=0.1)
    with pytest.raises((DeadlineExceeded, Unavailable)):
        weights.hold(model(tmp_path, URI))
    assert left(weights) == ["model.safetensors.part"]


def test_one_process_fetches_and_the_others_wait_for_it(hub: Hub, tmp_path: Path) -> None:
    hub.put(NAME, LARGE)
    hub.waits_after = 1 << 20
    processes = [child(tmp_path, hub), child(tmp_path, hub)]
    assert hub.waiting.wait(30)
    told: list[Progress] = []

    def watch(progress: Progress) -> None:
        told.append(progress)
        hub.held.set()

    with cache(tmp_path, hub_url=hub.url).hold(model(tmp_path, URI), progress=watch) as held:
        assert held.download_s == 0.0
    assert sorted(process.communicate(timeout=30)[0] for process in processes) == [
        f"{COMMIT} False\n", f"{COMMIT} True\n"
    ]  # fmt: skip
    assert told[0].pid in {process.pid for process in processes}
    assert len(hub.asked) == 1


def test_waiting_for_another_process_has_a_bound(hub: Hub, tmp_path: Path) -> None:
    hub.put(NAME, LARGE)
    hub.waits_after = 1 << 20
    process = child(tmp_path, hub)
    assert hub.waiting.wait(30)
    with pytest.raises(Unavailable, match=rf"process {process.pid} has \d+ of {SIZE} bytes"):
        cache(tmp_path, hub_url=hub.url, wait_s=0.1).hold(model(tmp_path, URI))
    hub.held.set()
    assert process.communicate(timeout=30)[0] == f"{COMMIT} True\n"


def test_a_process_that_is_killed_leaves_a_fetch_that_the_next_one_ends(hub: Hub, tmp_path: Path) -> None:
    hub.put(NAME, LARGE)
    hub.waits_after = 2 << 20
    process = child(tmp_path, hub)
    assert hub.waiting.wait(30)
    weights = cache(tmp_path, hub_url=hub.url)
    part = _part_of(weights)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    have = part.stat().st_size
    assert have > 0
    assert weights.locate(model(tmp_path, URI)) is None
    hub.waits_after = None
    hub.held.set()
    with weights.hold(model(tmp_path, URI)) as held:
        assert (held.folder / "model.safetensors").read_bytes() == LARGE["model.safetensors"]
    assert ranges(hub) == [None, f"bytes={have}-"]


def _part_of(weights: WeightsCache) -> Path:
    """The partial file, once something is in it."""
    for _ in range(1000):
        for path in weights.folder.glob("*/partial/*/files/*.part"):
            if path.stat().st_size >= 1 << 20:
                return path
        time.sleep(0.01)
    raise AssertionError("nothing came")


def test_threads_of_one_process_fetch_once_too(hub: Hub, tmp_path: Path) -> None:
    hub.put(NAME, LARGE)
    weights, found = cache(tmp_path, hub_url=hub.url), []
    threads = [
        threading.Thread(target=lambda: found.append(weights.hold(model(tmp_path, URI)).download_s > 0))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False, False, False, True]
    assert len(hub.asked) == 1


def test_a_disk_that_fills_up_in_the_middle_is_told_in_one_line_and_given_back(hub: Hub, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the kernel refuses the write half way."""
    hub.put(NAME, {**LARGE, **{f"{number}.json": b"{}" for number in range(9)}})
    told = child(tmp_path, hub, f'{{"limit": {2 << 20}}}').communicate(timeout=30)[0]
    assert told == (
        f"Unavailable weights.folder: no room for {URI}: it needs {SIZE + 18} bytes more on the disk of "
        f"{tmp_path}/home/weights: free some with `reelmesh models gc`, or set weights.folder to a larger disk\n"
    )
    weights = cache(tmp_path, hub_url=hub.url)
    assert (left(weights), weights.size_bytes()) == ([], 0)
    weights.hold(model(tmp_path, URI)).close()


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.put(NAME, {**LARGE, **FILES})
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100})())
    with pytest.raises(Unavailable, match=r"it needs \d+ bytes more"):
        cache(tmp_path, hub_url=hub.url).hold(model(tmp_path, URI))
    assert hub.asked == []
