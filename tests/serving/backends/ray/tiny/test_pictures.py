"""Tiny checkpoints of pictures and clips: the same bytes every time, small, and safetensors alone."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from serving.backends.ray.tiny import pictures

MAKERS = [pictures.sdxl, pictures.sdxl_controlnet, pictures.animatediff, pictures.stable_video_diffusion]
MOST_BYTES = 5_000_000


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_a_maker_writes_the_same_bytes_every_time(make: Callable[[Path], Mapping[str, Any]], tmp_path: Path) -> None:
    told = []
    for name in ("first", "again"):
        (tmp_path / name).mkdir()
        told.append(make(tmp_path / name))
    first = digests(tmp_path / "first")
    assert first == digests(tmp_path / "again")
    assert told[0] == told[1]
    assert sum(path.stat().st_size for path in (tmp_path / "first").rglob("*")) < MOST_BYTES
    assert not [name for name in first if name.endswith((".bin", ".pt", ".ckpt"))]
