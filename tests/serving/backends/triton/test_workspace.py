import os
import shutil
from pathlib import Path

import pytest

from serving.backends.triton import workspace as module
from serving.backends.triton.workspace import LOGS_KEPT, Workspace, remove_left_environments


@pytest.fixture
def shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(module, "SHARED_MEMORY", folder)
    return folder


def test_what_a_dead_server_left_is_removed_by_the_next(tmp_path: Path, shared_memory: Path) -> None:
    dead = Workspace.open(tmp_path)
    region = shared_memory / f"{dead.shared_memory_prefix}abc"
    region.touch()
    dead._lock.close()  # as the kernel does when the process dies
    Workspace.open(tmp_path).close()
    assert not region.exists()
    assert not dead.folder.exists()


def test_what_a_living_server_uses_stays(tmp_path: Path, shared_memory: Path) -> None:
    living = Workspace.open(tmp_path)
    region = shared_memory / f"{living.shared_memory_prefix}abc"
    region.touch()
    Workspace.open(tmp_path).close()
    assert region.exists() and living.folder.exists()
    living.close()
    assert not region.exists() and not living.folder.exists()


def test_sockets_are_for_their_user_alone(tmp_path: Path, shared_memory: Path) -> None:
    workspace = Workspace.open(tmp_path)
    folder = workspace.sockets("1")
    assert folder is not None
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    workspace.close()
    assert not folder.parent.exists()


def test_sockets_of_a_server_that_was_killed_are_removed_whatever_became_of_its_home(
    tmp_path: Path, shared_memory: Path
) -> None:
    gone, killed, living = (Workspace.open(tmp_path / name) for name in ("gone", "killed", "living"))
    folders = [each.sockets("1") for each in (gone, killed, living)]
    for dead in (gone, killed):
        dead._lock.close()  # as the kernel does when the process dies
    shutil.rmtree(tmp_path / "gone")
    Workspace.open(tmp_path / "other").close()
    assert [folder is not None and folder.exists() for folder in folders] == [False, False, True]
    living.close()


def test_only_the_last_logs_are_kept(tmp_path: Path, shared_memory: Path) -> None:
    for _ in range(LOGS_KEPT + 3):
        workspace = Workspace.open(tmp_path)
        workspace.open_log().close()
        workspace.close()
    assert len(list((tmp_path / "logs").iterdir())) == LOGS_KEPT


def test_a_log_beyond_its_bound_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_BYTES", 10)
    workspace = Workspace.open(tmp_path)
    for text in (b"12345678901", b"new"):
        with workspace.open_log() as stream:
            stream.write(text)
    assert workspace.log_tail() == "new"
    workspace.close()


def test_empty_folders_of_python_backends_that_were_killed_are_removed(tmp_path: Path) -> None:
    left, used, new, other = (tmp_path / name for name in ("python_env_a", "python_env_b", "python_env_c", "x"))
    for folder in (left, used, new, other):
        folder.mkdir()
    (used / "1").mkdir()
    for folder in (left, used, other):
        os.utime(folder, (0, 0))
    remove_left_environments(tmp_path)
    assert sorted(tmp_path.iterdir()) == [used, new, other]
