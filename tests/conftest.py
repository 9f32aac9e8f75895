"""Fixtures of every test: the checkout's root, free ports, settings of one's own, and no process left behind."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from serving.settings import EdgeSettings, Settings
from tests.servers.fixtures import bucket, postgres_database, postgres_url, rabbitmq_url, redis_url, s3_url, sqs_url
from tests.servers.process import KEPT
from tests.servers.process import free_ports as find_ports

__all__ = ["bucket", "postgres_database", "postgres_url", "rabbitmq_url", "redis_url", "s3_url", "sqs_url"]
ROOT = Path(__file__).resolve().parent.parent
RUN = "PYTEST_RUN_ID"
os.environ[RUN] = uuid4().hex  # tells this run's processes from those of another one on the same machine
_MESHES = "meshes"
GRACE_S = 5.0
"""How long processes of a finished test may take to end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts a mesh comes last, when nothing else keeps the cores busy; the rest stays shuffled."""
    items.sort(key=lambda item: _scope_of(item.nodeid) == _MESHES)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests stay in one process, and so do all that start a mesh: two meshes starve on two cores.

    Not by ``--dist loadgroup``, whose groups pytest 9.2 no longer sees (xdist 3.8).
    """
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _scope_of(nodeid)

    return Files(config, log)


def _scope_of(nodeid: str) -> str:
    file = nodeid.partition("::")[0]
    meshes = file.startswith("tests/flows/") or file.endswith(("/test_deployed.py", "/test_handle.py"))
    return _MESHES if meshes else file


@pytest.fixture(scope="session")
def repository_root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on how the developer's shell is set up."""
    for name in [name for name in os.environ if name.startswith("REELMESH_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def free_ports() -> Callable[[int], list[int]]:
    """``free_ports(3)``: distinct loopback ports that are free now."""
    return find_ports


@pytest.fixture
def free_port(free_ports: Callable[[int], list[int]]) -> int:
    """One loopback port that is free now."""
    return free_ports(1)[0]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Resolved settings with a home of this test's own and free ports."""
    edge = EdgeSettings(http_port=0, grpc_port=0, metrics_port=0)
    return Settings(home=tmp_path / "home", model_repositories=[ROOT / "model_repository"], edge=edge).resolved()


@pytest.fixture(autouse=True)
def _no_process_stays_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves processes, and end them, so that they cannot disturb the tests after it.

    Session fixtures start theirs before this one looks, so what they keep running is not counted; nor are servers
    of the whole run, which a fixture may ask for later.
    """
    before = set(psutil.pids())
    yield
    deadline = time.monotonic() + GRACE_S
    while left := _left_behind(request.node.nodeid, before):
        if time.monotonic() > deadline:
            names = [_describe(process) for process in left]
            for process in left:
                process.kill()
            pytest.fail(f"left processes behind: {'; '.join(names)}")
        time.sleep(0.05)


def _left_behind(node: str, before: set[int]) -> list[psutil.Process]:
    """New children of ours, and orphans: pytest names the running test in the environment that they inherited."""
    found = []
    for pid in set(psutil.pids()) - before - KEPT:  # looking at every process would cost each test 15 ms
        try:
            process = psutil.Process(pid)
            if (process.ppid() == os.getpid() or _is_of(process.environ(), node)) and _counts(process):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _is_of(environment: dict[str, str], node: str) -> bool:
    return environment.get(RUN) == os.environ[RUN] and _test_of(environment) == node


def _test_of(environment: dict[str, str]) -> str:
    return environment.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0]


def _counts(process: psutil.Process) -> bool:
    try:
        helper = any("resource_tracker" in part or "forkserver" in part for part in process.cmdline())
        return not helper and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:120]}"
    except psutil.Error:
        return str(process.pid)
