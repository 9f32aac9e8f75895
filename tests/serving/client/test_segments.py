import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from serving.client.segments import FOLDER, Segment, remove_stale, stale_names


def test_a_segment_is_there_until_it_is_closed() -> None:
    segment = Segment.create(1 << 16)
    assert (FOLDER / segment.name).stat().st_size == 1 << 16
    assert str(os.getpid()) in segment.name
    assert segment.name not in stale_names()
    segment.close()
    segment.close()
    assert not (FOLDER / segment.name).exists()


def test_arrays_outlive_the_segment_they_look_at() -> None:
    segment = Segment.create(1 << 16)
    array = np.frombuffer(segment.view(0, 4), np.uint8)
    segment.view(0, 4)[:] = b"abcd"
    segment.close()
    assert array.tobytes() == b"abcd"


def test_more_memory_than_there_is_is_refused_at_once() -> None:
    with pytest.raises(OSError, match=r"\w"):
        Segment.create(1 << 50)
    assert list(FOLDER.glob(f"reelmesh-client-{os.getpid()}-*")) == []


CRASH = """
import os, signal
from serving.client.segments import Segment
segment = Segment.create(4096)
print(segment.name, flush=True)
{end}
"""


@pytest.mark.parametrize(
    ("end", "left"),
    [("os.kill(os.getpid(), signal.SIGKILL)", True), ("raise SystemExit(3)", False)],
    ids=["killed", "left without closing"],
)
def test_only_a_killed_process_leaves_a_segment_and_the_next_one_finds_it(end: str, left: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CRASH.format(end=end)],
        capture_output=True, text=True, cwd=Path(__file__).parents[3], check=False,
    )  # fmt: skip
    name = done.stdout.strip()
    assert name
    assert (name in stale_names()) is left
    remove_stale(name)
    assert not (FOLDER / name).exists()


def test_the_fork_of_a_process_does_not_take_its_segments_along_when_it_ends() -> None:
    segment = Segment.create(4096)
    code = (
        "import os\nfrom serving.client.segments import Segment\nsegment = Segment.create(4096)\n"
        "child = os.fork()\nif child == 0:\n    raise SystemExit\nos.waitpid(child, 0)\n"
        "print(os.path.exists('/dev/shm/' + segment.name))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True, text=True, cwd=Path(__file__).parents[3], check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "True"
    segment.close()
