"""A launched program is what was asked for, and does not outlive its parent."""

import asyncio
import os
import resource
import subprocess
import sys
from pathlib import Path

import psutil

from serving.backends.launch import command_of

ROOT = Path(__file__).parents[3]
SHOW_STACK = ("/bin/sh", "-c", "ulimit -s")


def test_it_becomes_the_program_with_the_stack_that_was_asked_for():
    shown = subprocess.run(command_of(*SHOW_STACK, stack_bytes=4 << 20), capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "4096"


def test_it_leaves_the_stack_alone_unless_asked():
    soft = resource.getrlimit(resource.RLIMIT_STACK)[0]
    shown = subprocess.run(command_of(*SHOW_STACK), capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == ("unlimited" if soft == resource.RLIM_INFINITY else str(soft // 1024))


def test_it_refuses_to_start_for_a_parent_that_has_ended():
    command = command_of("/bin/true")
    command[4] = "1"
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "the process that wanted true has ended" in refused.stderr


async def test_a_killed_parent_takes_the_program_with_it():
    parent = (
        "import asyncio, serving.backends.launch as launch\n"
        "async def main():\n"
        "    child = await asyncio.create_subprocess_exec(*launch.command_of('/bin/sleep', '60'))\n"
        "    print(child.pid, flush=True)\n"
        "    await child.wait()\n"
        "asyncio.run(main())"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", parent, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    child = psutil.Process(int(await asyncio.wait_for(process.stdout.readline(), 20)))
    process.kill()
    await process.wait()
    for _ in range(100):
        if not child.is_running() or child.status() == psutil.STATUS_ZOMBIE:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it outlived its parent")
