"""How an ffmpeg child is found, started and ended; used by serving.media.ffmpeg alone.

The one invariant: the child leads its own process group and the kernel kills it when its parent dies.
"""

import functools
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from serving.errors import MissingDependency

STDERR_TAIL_BYTES: Final = 64 * 1024
"""How much of a child's standard error is kept."""

_MESSAGE_CHARS: Final = 200


@functools.cache
def find_ffmpeg() -> Path:
    """The ffmpeg of imageio-ffmpeg (known to hold libx264 and libass), else the one on ``PATH``.

    Raises:
        MissingDependency: neither is there.
    """
    try:
        import imageio_ffmpeg

        return Path(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        found = shutil.which("ffmpeg")
    if found is None:
        raise MissingDependency("ffmpeg is not installed", fix="pip install imageio-ffmpeg, or apt-get install ffmpeg")
    return Path(found)


@functools.cache
def _dies_with_parent() -> tuple[str, ...]:
    """``setpriv`` (util-linux) has the kernel kill the child when the thread that started it ends.

    A pre-exec hook would do the same but may deadlock in a process with threads.
    """
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()


def command_line(arguments: Sequence[str], *, loglevel: str = "error") -> list[str]:
    """The whole command for ``arguments`` (everything after the global options)."""
    head = ["-hide_banner", "-nostdin", "-nostats", "-y", "-loglevel", loglevel]
    return [*_dies_with_parent(), str(find_ffmpeg()), *head, *arguments]


def kill_group(pid: int, returncode: int | None) -> None:
    """Kill a child that still runs, with everything it started."""
    if returncode is None:
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def failure_text(returncode: int, stderr: str) -> str:
    """One line for people: the end of what ffmpeg said, which is where the cause stands."""
    said = " ".join(stderr.split())
    return f"ffmpeg failed ({returncode}): {said[-_MESSAGE_CHARS:] or 'it said nothing'}"
