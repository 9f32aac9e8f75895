"""Becomes tritonserver, tied to the life of the process that asked for it; started with ``python -I -S``.

The one invariant: from before tritonserver runs its first instruction, the kernel kills it when its parent ends,
even by SIGKILL. A pre-exec hook would do the same, but Python code between fork and exec may deadlock in a process
with threads. Usage: ``launch.py PARENT_PID PROGRAM ARGUMENT...``
"""

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h; the setting outlives exec."""
STACK_BYTES = 256 << 20
"""Stack of each thread, as address space. Triton parses JSON by recursion without a bound: with the usual 8 MiB some
130,000 opening brackets end it (measured, 64 bytes each), with this it takes 3 million."""


def main() -> None:
    """Ask for the signal, make sure that the parent did not end before that, and exec."""
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    most = STACK_BYTES if hard == resource.RLIM_INFINITY else min(STACK_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_STACK, (most, hard))
    parent, program = int(sys.argv[1]), sys.argv[2]
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the process that wanted tritonserver has ended")
    os.execv(program, sys.argv[2:])  # noqa: S606 - no shell wanted


if __name__ == "__main__":
    main()
