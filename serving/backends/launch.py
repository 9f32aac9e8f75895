"""Becomes another program, tied to the life of the process that asked for it; started by :func:`command_of`.

The one invariant: from before the program runs its first instruction, the kernel kills it when its parent ends, even
by SIGKILL. A pre-exec hook would do the same, but Python code between fork and exec may deadlock in a process with
threads. Usage: ``python -I -S launch.py PARENT_PID STACK_BYTES PROGRAM ARGUMENT...``
"""

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h; the setting outlives exec."""


def command_of(*command: str, stack_bytes: int = 0) -> list[str]:
    """The command line that starts a program as our child and lets it end with us.

    Args:
        command: the program, and its arguments.
        stack_bytes: address space for the stack of each of its threads; 0 leaves what we have.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(stack_bytes), *command]


def main() -> None:
    """Ask for the signal, make sure that the parent did not end before that, and exec."""
    parent, stack_bytes, program = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    if stack_bytes:
        _, hard = resource.getrlimit(resource.RLIMIT_STACK)
        most = stack_bytes if hard == resource.RLIM_INFINITY else min(stack_bytes, hard)
        resource.setrlimit(resource.RLIMIT_STACK, (most, hard))
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(f"the process that wanted {os.path.basename(program)} has ended")  # noqa: PTH119  starts faster
    os.execv(program, sys.argv[3:])  # noqa: S606 - no shell wanted


if __name__ == "__main__":
    main()
