"""A home belongs to one mesh; one that nobody named is gone after the run."""

import os
from pathlib import Path

import pytest

from serving.cli.home import THROWAWAYS_KEPT, taken_home, throwaway_home


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "reelmesh" / "serve"


def used(home: Path) -> None:
    with taken_home(home):
        (home / "logs").mkdir()


def test_a_home_that_nobody_named_is_removed_after_the_run(parent: Path) -> None:
    with throwaway_home(None) as home:
        used(home)
        assert home.parent == parent
    assert list(parent.iterdir()) == []


def test_a_home_that_was_named_stays(tmp_path: Path, parent: Path) -> None:
    with throwaway_home(tmp_path / "mine") as home:
        used(home)
    assert (tmp_path / "mine" / "logs").is_dir()
    assert not parent.exists()


def test_what_failed_leaves_its_logs_but_not_for_ever(parent: Path) -> None:
    for _ in range(THROWAWAYS_KEPT + 3):
        with pytest.raises(ValueError, match="broken"), throwaway_home(None) as home:
            used(home)
            raise ValueError("broken")
    assert len(list(parent.iterdir())) <= THROWAWAYS_KEPT + 1
    assert (home / "logs").is_dir()


def test_the_home_of_a_mesh_that_runs_is_never_cleared_away(parent: Path) -> None:
    running = parent / "running"
    with taken_home(running):
        os.utime(running, (0, 0))
        for number in range(THROWAWAYS_KEPT + 1):
            (parent / f"newer{number}").mkdir()
        with throwaway_home(None):
            assert running.is_dir()
