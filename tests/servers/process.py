"""A server program that tests talk to: found where Debian puts it, started on a free port, ended with the tests.

The one invariant: no server outlives its tests, however they end: the kernel ends it when its starter dies.
"""

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

START_S = 100.0
"""How long a server may take to answer. Seconds are usual; RabbitMQ on a busy core takes far longer."""
STOP_S = 10.0
"""How long a server may take to end before it is killed."""
_CHANCE = random.SystemRandom()  # processes that test side by side have one seed
KEPT: set[int] = set()
"""Process ids of running servers: no test left them behind."""


class Server:
    """A server process in a folder of its own, ended by :meth:`stop`, started again by :meth:`start`.

    Args:
        command: program and arguments.
        folder: where it runs; what it prints goes to ``output`` in there.
        user: whom it runs as, if the tests run as root.
        environment: all of its variables; nothing of pytest's, which would name the test that started it.
        ready: tells whether it answers.
        stop_signal: asks it to end fast.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        *,
        ready: Callable[[], bool],
        user: str = "",
        environment: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self._command = [*as_user(user), *command]
        self._folder = folder
        self._environment = {**base_environment(folder), **(environment or {})}
        self._ready = ready
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers; fails the test with its last words if it never does."""
        with (self._folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        KEPT.add(self._process.pid)
        deadline = time.monotonic() + START_S
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                pytest.fail(f"{' '.join(self._command)} does not answer: {self.output()[-2000:]}", pytrace=False)
            time.sleep(0.02)

    def stop(self, *, at_once: bool = False) -> None:
        """End it and all that it started; ``at_once`` is kill -9."""
        if self._process is None:
            return
        self._signal(signal.SIGKILL if at_once else self._stop_signal)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        self._signal(signal.SIGKILL)
        self._process.wait(STOP_S)
        KEPT.discard(self._process.pid)
        self._process = None

    def output(self) -> str:
        """What it has printed so far."""
        return (self._folder / "output").read_text(encoding="utf-8", errors="replace")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


@contextmanager
def own_folder(user: str = "") -> Iterator[Path]:
    """A folder that belongs to the one whom a server runs as, removed afterwards.

    It lies apart from pytest's own, which only the one who runs the tests may enter.
    """
    folder = Path(tempfile.mkdtemp(prefix="reelmesh-server-"))
    try:
        if changes(user):
            account = pwd.getpwnam(user)
            os.chown(folder, account.pw_uid, account.pw_gid)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def as_user(user: str) -> list[str]:
    """What to put before a command so that it ends with us and, if we are root, runs as somebody else.

    The word to the kernel comes second, since a change of user takes it back.
    """
    other: list[str] = []
    if changes(user):
        account = pwd.getpwnam(user)
        other = ["setpriv", "--reuid", str(account.pw_uid), "--regid", str(account.pw_gid), "--clear-groups"]
    return [*other, "setpriv", "--pdeathsig", "KILL"]


def changes(user: str) -> bool:
    """Whether a server runs as somebody else than the tests."""
    return bool(user) and os.geteuid() == 0


def base_environment(folder: Path) -> dict[str, str]:
    """The few variables that any program needs."""
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", "TMPDIR": str(folder)}


def program(name: str, package: str, *folders: str) -> str:
    """The path of a server program; fails the test with the command that installs it."""
    for pattern in folders:
        root = Path("/")
        if found := sorted(root.glob(f"{pattern.lstrip('/')}/{name}")):
            return str(found[-1])
    if path := shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/bin"):
        return path
    pytest.fail(f"{name} is not installed: run: apt-get install {package}", pytrace=False)


def free_ports(count: int) -> list[int]:
    """Distinct loopback ports that are free now.

    From below those that the kernel gives to connections and servers that name none, of which other tests have many:
    one of them could be taken before it is used.
    """
    with ExitStack() as held:
        found: list[int] = []
        while len(found) < count:
            port, one = _CHANCE.randrange(20_000, 32_000), held.enter_context(socket.socket())
            with suppress(OSError):
                one.bind(("127.0.0.1", port))
                found.append(port)
        return found


def listens(port: int) -> bool:
    """Whether something takes connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
