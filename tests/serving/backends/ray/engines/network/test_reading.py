"""Reading ahead fills the page cache and leaves everything else as it is."""

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np

from serving.backends.ray.engines.network.reading import read_ahead

SIZE = 32 << 20


def pages_cached(path: Path) -> float:
    """Part of a file that lies in the page cache (mincore)."""
    pages = np.memmap(path, np.uint8, "r")
    found = (ctypes.c_ubyte * -(-SIZE // mmap.PAGESIZE))()
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.mincore(ctypes.c_void_p(pages.ctypes.data), ctypes.c_size_t(SIZE), found)
    assert result == 0, os.strerror(ctypes.get_errno())
    return sum(each & 1 for each in found) / len(found)


def test_the_files_are_in_the_page_cache_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "model.safetensors"
    path.parent.mkdir()
    with path.open("wb") as file:
        file.write(os.urandom(SIZE))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    read_ahead([path]).join(20)
    assert pages_cached(path) > 0.99


def test_what_cannot_be_opened_is_left_to_whoever_loads_it(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{}")
    thread = read_ahead([*tmp_path.iterdir(), tmp_path, tmp_path / "not there"])
    thread.join(20)
    assert not thread.is_alive()
