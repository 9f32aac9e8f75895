"""Finds a tritonserver, or unpacks the one in the nvidia-pytriton wheel; called by replicas, doctor and make.

The one invariant: an install folder appears whole or not at all and never changes afterwards, so checkouts
share it. It stays apart from the venv because the wheel's pins clash with ours: the python backend's stub was
built against numpy 1 and under numpy 2 it silently reads item sizes as 0, so it gets a numpy of its own.
"""

import argparse
import fcntl
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from serving.errors import BadInput, MissingDependency, ReelmeshError
from serving.settings import Settings

PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"

TRITON: Final = "nvidia-pytriton==0.7.0"
"""Apache-2.0; carries Triton 2.51 with the python backend and its stub for Python 3.8 to 3.13."""

NUMPY: Final = "numpy==1.26.4"
"""BSD-3-Clause; the last numpy that the stub works with."""

DIGESTS: Final[Mapping[str, str]] = {
    TRITON: "21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df",
    NUMPY: "666dbfb6ec68962c033a450943ded891bed2d54e6755e35e5835d63f4f6931d5",
}
"""SHA-256 of the wheels for Python 3.11 on x86_64; elsewhere a tritonserver of one's own is needed."""

SERVER: Final = Path("pytriton/tritonserver")
STUB: Final = SERVER / "backends/python/triton_python_backend_stub"
PACKAGES: Final = Path("packages")
KEPT: Final = (f"{SERVER}/bin/", f"{SERVER}/backends/", f"{SERVER}/caches/", "nvidia_pytriton.libs/")
"""Folders of the wheel that are unpacked; their places relative to one another matter to the loader."""

DOWNLOAD_TIMEOUT_S: Final = 900.0
SYSTEM_TRITON: Final = Path("/opt/tritonserver/bin/tritonserver")
"""Where NVIDIA's image keeps it."""

MEND: Final = f"{Path(sys.executable).name} -m serving.backends.triton.install"


@dataclass(frozen=True, slots=True)
class TritonInstall:
    """A tritonserver that can be started.

    Args:
        binary: the program.
        backends: its backend folder.
        stub: what the python backend of an unpacked wheel needs; None for an install that is whole by itself.
    """

    binary: Path
    backends: Path
    stub: "StubNeeds | None" = None

    def has_backend(self, name: str) -> bool:
        """Whether a backend is there, natively or as a python-based one."""
        return (self.backends / name).is_dir()

    def backend_names(self) -> list[str]:
        """Every backend that is there."""
        return sorted(folder.name for folder in self.backends.iterdir() if folder.is_dir())


@dataclass(frozen=True, slots=True)
class StubNeeds:
    """What the python backend's stub must find.

    Args:
        library: folder of the libpython it is linked against.
        packages: folder with the numpy it was built for.
    """

    library: Path
    packages: Path


def default_folder() -> Path:
    """Where the wheel is unpacked: the user's cache, one folder per set of wheels."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    versions = "-".join(wheel.partition("==")[2] for wheel in DIGESTS)
    return cache / "reelmesh" / f"triton-{versions}-python{PYTHON}"


def find_tritonserver(settings: Settings) -> TritonInstall:
    """The tritonserver to start: the one set, the one on PATH, NVIDIA's image's, else the unpacked wheel's.

    Raises:
        MissingDependency: there is none, or it lacks what it needs; ``fix`` is the command that mends it.
    """
    if settings.tritonserver is not None:
        if not os.access(settings.tritonserver, os.X_OK) or settings.tritonserver.is_dir():
            raise MissingDependency(
                f"{settings.tritonserver} is not a program",
                field="settings.tritonserver",
                fix="set REELMESH_TRITONSERVER to a tritonserver binary, or leave it unset",
            )
        return _described(settings.tritonserver)
    found = shutil.which("tritonserver")
    unpacked = default_folder() / SERVER / "bin/tritonserver"
    for binary in (Path(found) if found else None, SYSTEM_TRITON, unpacked):
        if binary is not None and binary.is_file():
            return _described(binary)
    raise MissingDependency("tritonserver is not installed", fix=f"run `{MEND}`")


def _described(binary: Path) -> TritonInstall:
    binary = binary.resolve()
    backends = binary.parent.parent / "backends"
    if (backends / "onnxruntime").is_dir():
        return TritonInstall(binary, backends)
    packages = binary.parents[3] / PACKAGES
    if not os.access(backends / "python" / STUB.name, os.X_OK) or not packages.is_dir():
        raise MissingDependency(
            f"{binary} has no onnxruntime backend, and no complete python backend", fix=f"run `{MEND}`"
        )
    return TritonInstall(binary, backends, StubNeeds(python_library(), packages))


def python_library() -> Path:
    """The folder of this Python's shared library, which the python backend's stub is linked against.

    Raises:
        MissingDependency: Python was built without it and the system has none.
    """
    name = f"libpython{PYTHON}.so.1.0"
    multiarch = sysconfig.get_config_var("MULTIARCH") or f"{platform.machine()}-linux-gnu"
    places = [
        Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib"),
        Path(sys.base_prefix) / "lib",
        Path("/usr/lib") / multiarch,
        Path("/usr/local/lib"),
        Path("/usr/lib64"),
    ]
    for place in places:
        if (place / name).exists():
            return place
    raise MissingDependency(
        f"{name} is not installed, and Triton's python backend needs it",
        fix=f"apt-get install libpython{PYTHON}",
    )


def install(into: Path, wheels: Path | None = None) -> Path:
    """Unpack the wheels into ``into``, unless that is done already; safe when several run at once.

    Args:
        into: folder to make; its parent also holds the lock.
        wheels: folder with the wheels' files; None downloads them.

    Returns:
        The tritonserver binary.

    Raises:
        MissingDependency: the wheels cannot be had, or are not made for this machine or Python.
        BadInput: a file is not the wheel that is pinned here.
    """
    binary = into / SERVER / "bin/tritonserver"
    with _lock(into):
        if not binary.is_file():
            _check_machine()
            with tempfile.TemporaryDirectory(dir=into.parent, prefix=".unpack-") as scratch:
                unpacked = Path(scratch) / "install"
                for name in DIGESTS:
                    wheel = _find(name, wheels) if wheels else _download(name, Path(scratch))
                    _check_digest(name, wheel)
                    (_unpack_triton if name == TRITON else _unpack_numpy)(wheel, unpacked)
                shutil.rmtree(into, ignore_errors=True)
                unpacked.rename(into)
    return binary


@contextmanager
def _lock(into: Path) -> Iterator[None]:
    into.parent.mkdir(parents=True, exist_ok=True)
    with (into.parent / f".{into.name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _check_machine() -> None:
    if platform.machine() != "x86_64" or sys.version_info[:2] != (3, 11):
        raise MissingDependency(
            f"no Triton wheel is pinned for Python {PYTHON} on {platform.machine()}",
            fix="set REELMESH_TRITONSERVER to an installed tritonserver",
        )


def _download(name: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), name]
    try:
        subprocess.run(command, check=True, timeout=DOWNLOAD_TIMEOUT_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise MissingDependency(
            f"the wheel {name} could not be downloaded",
            fix=f"check the network, or fetch {' and '.join(DIGESTS)} elsewhere and run `{MEND} --wheels FOLDER`",
        ) from error
    return _find(name, folder)


def _find(name: str, folder: Path) -> Path:
    project, _, version = name.partition("==")
    found = sorted(folder.glob(f"{project.replace('-', '_')}-{version}-*.whl"))
    if not found:
        raise BadInput(f"no wheel of {name} in {folder}", field="--wheels", fix="put it there")
    return found[0]


def _check_digest(name: str, wheel: Path) -> None:
    with wheel.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != DIGESTS[name]:
        raise BadInput(f"{wheel.name} has SHA-256 {found}, not {DIGESTS[name]}", field=name, fix="fetch it again")


def _unpack_triton(wheel: Path, into: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(KEPT) or "/licenses/" in name:
                archive.extract(name, into)
        stub = archive.read(f"{SERVER}/python_backend_stubs/{PYTHON}/{STUB.name}")
    (into / STUB).write_bytes(stub)
    for program in (into / SERVER / "bin/tritonserver", into / STUB):
        program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def _unpack_numpy(wheel: Path, into: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if "/tests/" not in name:
                archive.extract(name, into / PACKAGES)


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m serving.backends.triton.install [--into FOLDER] [--wheels FOLDER]``."""
    parser = argparse.ArgumentParser(
        prog="serving.backends.triton.install", description="Unpack tritonserver into a folder of its own."
    )
    parser.add_argument("--into", type=Path, default=default_folder(), help="folder to unpack into")
    parser.add_argument("--wheels", type=Path, help="folder with the wheels, where they cannot be downloaded")
    options = parser.parse_args(arguments)
    try:
        binary = install(options.into.expanduser().resolve(), options.wheels)
        python_library()
    except ReelmeshError as error:
        print(error, file=sys.stderr)
        return 1
    print(binary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
