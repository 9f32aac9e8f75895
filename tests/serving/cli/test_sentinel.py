"""Nothing outlives the command, whatever happens to it."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

# Starts a grandchild in a session of its own, which is what Ray's processes do, and waits.
COMMAND = """
import subprocess, sys, time
from serving.cli.sentinel import sentinel
with sentinel(0.5):
    code = "import subprocess, sys, time; subprocess.Popen(['sleep', '300'], start_new_session=True); time.sleep(300)"
    subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    time.sleep(2.5)
    print("ready", flush=True)
    {then}
"""


def started(then: str) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    process = subprocess.Popen([sys.executable, "-c", COMMAND.format(then=then)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    below = psutil.Process(process.pid).children(recursive=True)
    process.stdout.close()
    return process, below


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, None])
def test_grandchildren_end_with_the_command(number: signal.Signals | None) -> None:
    process, below = started("time.sleep(300)" if number else "time.sleep(0.5)")
    assert len(below) >= 3
    if number:
        process.send_signal(number)
    process.wait(30)
    deadline = time.monotonic() + 30
    while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in below):
        assert time.monotonic() < deadline, "processes are left"
        time.sleep(0.1)
