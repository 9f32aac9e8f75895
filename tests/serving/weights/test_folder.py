"""Folders as sources: links, hidden files and circles."""

from pathlib import Path

import pytest

from serving.errors import BadInput, NotFound
from serving.weights.folder import FolderRemote
from tests.serving.weights.models import cache, model, write


def test_links_are_followed_as_the_hubs_own_cache_is_made_of_them(tmp_path: Path) -> None:
    write(tmp_path / "blobs", {"1": b"abc"})
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "config.json").symlink_to(tmp_path / "blobs" / "1")
    (tmp_path / "snapshot" / "again").symlink_to(tmp_path / "snapshot")
    (tmp_path / "snapshot" / "gone.json").symlink_to(tmp_path / "nothing")
    write(tmp_path / "snapshot", {".hidden/x.json": b"", ".x.json": b""})
    (file,) = FolderRemote(tmp_path / "snapshot", "file:x").listing().files
    assert (file.name, file.size_bytes) == ("config.json", 3)
    with FolderRemote(tmp_path / "snapshot", "file:x").open(file, 1) as (offset, pieces):
        assert (offset, b"".join(pieces)) == (1, b"bc")


def test_files_that_nobody_wants_may_have_any_name(tmp_path: Path) -> None:
    write(tmp_path / "writer" / "w", {"config.json": b"{}", "download.part": b"", "new\nline": b""})
    cache(tmp_path).hold(model(tmp_path, "file:w")).close()
    write(tmp_path / "writer" / "w", {"new\nline.json": b""})
    with pytest.raises(BadInput, match="lists a file that cannot be"):
        cache(tmp_path).hold(model(tmp_path, "file:w"))


def test_a_folder_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        FolderRemote(tmp_path / "none", "file:none").listing()
