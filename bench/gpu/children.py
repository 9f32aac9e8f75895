"""Processes of bench.gpu, each with one network of its own, that tell the command what they find line by line.

The one invariant: a child ends with its parent, and whatever a child does, be it a crash of the device, costs only its
own figures.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TextIO

FOLDER: Final = Path(__file__).resolve().parent
CHILD: Final = "--child"
TOLD_OF_ERROR: Final = 512
"""Characters kept of what a child that failed wrote last."""
LEAVE_S: Final = 3
"""How long a child may take to end by itself."""

Event = dict[str, Any]


class Late(Exception):
    """A child said nothing until its deadline."""


class Ended(Exception):
    """A child ended before it had said all."""


class Child:
    """A process of this folder that runs a role and tells of it.

    Args:
        spec: what it shall do, as JSON can carry it; see bench.gpu.command for the roles.
    """

    def __init__(self, spec: Event) -> None:
        with contextlib.ExitStack() as held:
            self._errors = held.enter_context(tempfile.TemporaryFile(mode="w+"))
            # Exports are gigabytes, which a process that is ended would leave behind.
            self.scratch = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="bench-gpu-")))
            theirs, self._orders = held.enter_context(pipe())
            self._told, ours = held.enter_context(pipe())
            # A session of its own: compilers that it starts end with it.
            self._process = subprocess.Popen(
                [sys.executable, str(FOLDER), CHILD, json.dumps(spec)],
                stdin=theirs,
                stdout=ours,
                stderr=self._errors,
                env={**os.environ, "TMPDIR": str(self.scratch)},
                start_new_session=True,
            )
            theirs.close()
            ours.close()
            self._held = held.pop_all()
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def __enter__(self) -> Self:
        """The child, ended with the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.stop()

    def _read(self) -> None:
        for line in self._told:
            self._lines.put(line)
        self._lines.put(None)

    def next(self, deadline: float) -> Event | None:
        """What it tells next, until a time of :func:`time.monotonic`; None once it ended well.

        Raises:
            Late: it told nothing in time.
            Ended: it failed; the message is the end of what it wrote to its standard error.
        """
        try:
            line = self._lines.get(timeout=max(deadline - time.monotonic(), 0.0))
        except queue.Empty:
            raise Late from None
        if line is not None:
            event: Event = json.loads(line)
            return event
        code = self._process.wait()
        if code == 0:
            return None
        self._errors.seek(0)
        raise Ended(f"ended with code {code}: {self._errors.read()[-TOLD_OF_ERROR:].strip()}")

    def ask(self, order: Event) -> None:
        """Send it an order; one that has ended tells so when it is listened to."""
        with contextlib.suppress(BrokenPipeError):
            self._orders.write(json.dumps(order) + "\n")
            self._orders.flush()

    def stop(self) -> None:
        """End it and what it started, if it has not ended."""
        with contextlib.suppress(BrokenPipeError):
            self._orders.close()
        try:
            self._process.wait(timeout=LEAVE_S if self._process.poll() is None else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._reader.join(timeout=LEAVE_S)
        self._held.close()


@contextlib.contextmanager
def pipe() -> Iterator[tuple[TextIO, TextIO]]:
    """Both ends of a pipe, to read and to write text."""
    out, into = os.pipe()
    with os.fdopen(out, encoding="utf-8") as reader, os.fdopen(into, "w", encoding="utf-8") as writer:
        yield reader, writer


def telling() -> Callable[[Event], None]:
    """In a child: what tells its parent something. What libraries print goes to the standard error from here on."""
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(event: Event) -> None:
        told.write(json.dumps(event) + "\n")
        told.flush()

    return tell


def orders() -> Iterator[Event]:
    """In a child: what its parent asks for, until the parent is gone."""
    for line in sys.stdin:
        yield json.loads(line)


def end_with_parent() -> None:
    """In a child that takes no orders: end at once when the parent does."""

    def watch() -> None:
        # Not sys.stdin, whose lock a thread may not hold when Python ends.
        while os.read(0, 1):
            continue
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
