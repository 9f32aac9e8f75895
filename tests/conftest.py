"""Fixtures of every test: the checkout's root, free ports, settings of one's own, and no process left behind."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from serving.settings import EdgeSettings, Settings
from tests.servers.fixtures import postgres_database, postgres_url, rabbitmq_url, redis_url, sqs_url
from tests.servers.process import KEPT

__all__ = ["postgres_database", "postgres_url", "rabbitmq_url", "redis_url", "sqs_url"]
ROOT = Path(__file__).resolve().parent.parent
RUN = "PYTEST_RUN_ID"
os.environ[RUN] = uuid4().hex  # tells this run's processes from those of another one on the same machine
GRACE_S = 5.0
"""How long processes of a finished test may take to end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests stay in one process where several run tests, and all tests that start a mesh in one of them."""
    for item in items:
        meshes = item.path.parent.name == "flows" or item.path.name == "test_deployed.py"
        item.add_marker(pytest.mark.xdist_group("meshes" if meshes else item.nodeid.partition("::")[0]))


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

    def find(count: int) -> list[int]:
        with ExitStack() as held:
            sockets = [held.enter_context(socket.socket()) for _ in range(count)]
            for one in sockets:
                one.bind(("127.0.0.1", 0))
            return [one.getsockname()[1] for one in sockets]

    return find


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
    started = time.time()
    before = {child.pid for child in psutil.Process().children()}
    yield
    deadline = time.monotonic() + GRACE_S
    while left := _left_behind(request.node.nodeid, before, started):
        if time.monotonic() > deadline:
            names = [_describe(process) for process in left]
            for process in left:
                process.kill()
            pytest.fail(f"left processes behind: {'; '.join(names)}")
        time.sleep(0.05)


def _left_behind(node: str, before: set[int], started: float) -> list[psutil.Process]:
    """New children of ours, and orphans: pytest names the running test in the environment that they inherited."""
    found = {child.pid: child for child in psutil.Process().children() if child.pid not in before}
    for process in psutil.process_iter(["create_time"]):
        created = process.info["create_time"]
        if created and created >= started - 1 and process.pid not in before and process.pid != os.getpid():
            try:
                inherited = process.environ()
                if inherited.get(RUN) == os.environ[RUN] and _test_of(inherited) == node:
                    found[process.pid] = process
            except psutil.Error:
                continue
    return [process for process in found.values() if process.pid not in KEPT and _counts(process)]


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
