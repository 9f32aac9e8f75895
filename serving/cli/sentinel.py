"""The sentinel: a small process that outlives `reelmesh up` and ends whatever of the mesh is left; started by cli.mesh.

The one invariant: it acts once the command is gone, however it went, and only on processes that it saw descend from it.
Ray ends most of its processes by itself, but its agents outlive a killed raylet (seen with Ray 2.60).
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from typing import Final

import psutil

GRACE_S: Final = 8.0
"""How long processes may take to end by themselves once the command is gone."""
LOOK_S: Final = 1.0
"""How often the sentinel looks which processes there are."""


@contextlib.contextmanager
def sentinel(grace_s: float = GRACE_S) -> Iterator[None]:
    """See to it that no process started inside the block outlives it, or this process, by more than ``grace_s``."""
    # Its standard input ends when the other end is gone: with the block, or with this process.
    watcher = subprocess.Popen(
        [sys.executable, "-m", "serving.cli.sentinel", str(grace_s)], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield
    finally:
        if watcher.stdin is not None:
            watcher.stdin.close()
        watcher.wait()


def descendants(roots: Collection[psutil.Process]) -> set[psutil.Process]:
    """The roots that live, and everything below them; psutil tells reused ids apart by their start."""
    children: dict[int, list[psutil.Process]] = {}
    # One look at all processes: asking each root for its own children would look at all of them once per root.
    for process in psutil.process_iter(["ppid"]):
        children.setdefault(process.info["ppid"], []).append(process)
    found: set[psutil.Process] = set()
    waiting = [root for root in roots if _lives(root)]
    while waiting:
        process = waiting.pop()
        if process not in found:
            found.add(process)
            waiting += children.get(process.pid, [])
    return found


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def end(processes: set[psutil.Process], grace_s: float) -> None:
    """Wait for processes to end by themselves, then kill those that did not, and what they started meanwhile."""
    deadline = time.monotonic() + grace_s
    while (processes := descendants(processes)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def main() -> None:
    """Watch the parent's descendants until standard input ends, then end those that are left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    me, parent = psutil.Process(), psutil.Process(os.getppid())
    seen: set[psutil.Process] = set()
    while not select.select([sys.stdin], [], [], LOOK_S)[0]:
        seen = descendants(seen | {parent}) - {me, parent}
    end(seen, float(sys.argv[1]))


if __name__ == "__main__":
    main()
