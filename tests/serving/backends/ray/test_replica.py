"""What a replica of engines does besides running them."""

import os
from pathlib import Path

from serving.backends.ray.replica import own_scratch


def test_scratch_of_killed_replicas_is_removed_and_that_of_living_ones_stays(tmp_path: Path) -> None:
    dead, living = tmp_path / "audio-999999999", tmp_path / f"render-{os.getppid()}"
    for folder in (dead, living):
        folder.mkdir()
        (folder / "clip.mp4").write_bytes(b"x")
    scratch = own_scratch(tmp_path, "audio")
    assert scratch.is_dir()
    assert not dead.exists()
    assert living.exists()
    assert own_scratch(tmp_path, "audio") == scratch
