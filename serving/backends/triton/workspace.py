"""A tritonserver's own folder and its regions of shared memory; used by server.py.

The one invariant: whatever a killed replica left behind is removed by the next one that starts in the same home,
and never what a living one still uses: each workspace is locked for as long as its process lives.
"""

import contextlib
import fcntl
import math
import os
import secrets
import shutil
import tempfile
import time
from pathlib import Path
from typing import IO, Final

import psutil

from serving.protocol.shared_memory import FOLDER as SHARED_MEMORY
from serving.protocol.shared_memory import OWN_PREFIX

SOCKET_PATH_BYTES: Final = 90
"""Longest path of a socket, with room for the port that Triton adds; the kernel takes 107 bytes."""
OWNER: Final = "workspace"
"""Link in a folder of sockets to the workspace of the server that listens there."""
ENVIRONMENTS: Final = Path("/tmp")  # noqa: S108  Triton's own choice
CLOCKS_S: Final = 5.0
"""How far the time of a process's start may be off."""
LOGS_KEPT: Final = 5
"""Log files of earlier servers that stay for whoever asks what happened."""
LOG_BYTES: Final = 16 << 20
"""A log that has grown beyond this is begun anew when its server restarts."""


class Workspace:
    """A locked folder ``<home>/triton/<token>`` and the prefix of its shared memory; made by :meth:`open`."""

    def __init__(self, folder: Path, log_file: Path, lock: IO[str]) -> None:
        self.folder = folder
        self.log_file = log_file
        self.shared_memory_prefix = f"{OWN_PREFIX}{folder.name}"
        self._lock = lock

    @classmethod
    def open(cls, home: Path) -> "Workspace":
        """Clear away what dead servers left in ``home`` and make a new workspace."""
        parent, logs = home / "triton", home / "logs"
        for place in (parent, logs):
            place.mkdir(parents=True, exist_ok=True)
        for stale in parent.iterdir():
            _remove_if_dead(stale)
        _remove_ownerless_sockets()
        for old in sorted(logs.glob("triton-*.log"), key=_age)[LOGS_KEPT - 1 :]:
            old.unlink(missing_ok=True)
        folder = parent / secrets.token_hex(6)
        folder.mkdir()
        lock = (folder / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        return cls(folder, logs / f"triton-{folder.name}.log", lock)

    def run_folder(self, generation: int) -> Path:
        """A path for one run of the server, not made yet; what the run before left is removed."""
        shutil.rmtree(self.folder / str(generation - 1), ignore_errors=True)
        remove_left_environments()
        return self.folder / str(generation)

    def sockets(self, generation: str) -> Path | None:
        """A folder for the Unix sockets of one run, made; None where the machine's temporary folder lies too deep.

        The home may lie anywhere, and a socket's path is short; nobody else may open the folder.
        """
        folder = _socket_folder(self.folder.name) / generation
        if len(os.fsencode(folder)) > SOCKET_PATH_BYTES:
            return None
        shutil.rmtree(folder.parent, ignore_errors=True)
        # Made so and not changed to it, lest somebody has opened it meanwhile.
        folder.parent.mkdir(mode=0o700)
        folder.mkdir()
        (folder.parent / OWNER).symlink_to(self.folder)
        return folder

    @property
    def trace_file(self) -> Path:
        """Where traces go, when somebody turns tracing on; Triton numbers the files."""
        return self.log_file.with_name(f"{self.log_file.stem}-trace.json")

    def open_log(self) -> IO[bytes]:
        """The log, for appending."""
        stream = self.log_file.open("ab")
        if stream.tell() > LOG_BYTES:
            stream.truncate(0)
        return stream

    def log_tail(self, size_bytes: int = 4096) -> str:
        """The end of the log."""
        with self.log_file.open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - size_bytes))
            return stream.read(size_bytes).decode("utf-8", "replace")

    def clear_shared_memory(self) -> None:
        """Remove the regions; only while no server of this workspace runs."""
        _clear_shared_memory(self.folder.name)

    def close(self) -> None:
        """Remove everything but the log."""
        self.clear_shared_memory()
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(_socket_folder(self.folder.name), ignore_errors=True)
        self._lock.close()


def _remove_if_dead(folder: Path) -> None:
    try:
        with (folder / "lock").open("r+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _clear_shared_memory(folder.name)
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(_socket_folder(folder.name), ignore_errors=True)
    except OSError:
        return


def _remove_ownerless_sockets() -> None:
    """Remove folders of sockets whose server was killed in another home, which nobody may start in again."""
    for folder in _socket_folder("").parent.glob(_socket_folder("*").name):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid == os.getuid() and _is_dead((folder / OWNER).readlink()):
                shutil.rmtree(folder, ignore_errors=True)


def remove_left_environments(parent: Path = ENVIRONMENTS) -> None:
    """Remove the empty folders of Triton's python backend that no living tritonserver can have made.

    Each server makes one, at a place of Triton's own choosing, and one that is killed leaves it.
    """
    living = [process.info["create_time"] for process in psutil.process_iter(["name", "create_time"])
              if process.info["name"] == "tritonserver"]  # fmt: skip
    oldest = min(filter(None, living), default=math.inf)
    for folder in parent.glob("python_env_*"):
        with contextlib.suppress(OSError):
            found = folder.lstat()
            if found.st_uid == os.getuid() and found.st_mtime < min(oldest, time.time()) - CLOCKS_S:
                folder.rmdir()


def _is_dead(workspace: Path) -> bool:
    try:
        with (workspace / "lock").open("r+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True
    return True


def _socket_folder(token: str) -> Path:
    return Path(tempfile.gettempdir()) / f"reelmesh-{token}"


def _clear_shared_memory(token: str) -> None:
    for region in SHARED_MEMORY.glob(f"{OWN_PREFIX}{token}*"):
        region.unlink(missing_ok=True)


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except OSError:
        return 0.0
