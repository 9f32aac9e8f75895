"""All that decides what an export is, as one number, and the folder of exports that it finds again.

The one invariant: what has one fingerprint has the same bytes, so nothing is exported twice on a machine.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Final

import optimize
from optimize.parts.part import Part
from serving.backends.ray import parts as runtime
from serving.protocol.tasks import TaskRequest
from serving.repository.part_file import Precision

PACKAGES: Final = ("torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "diffusers", "transformers", "coqui-tts")
_SOURCES: Final = (
    "canonical.py",
    "external.py",
    "fixes.py",
    "diffusion_fixes.py",
    "onnx_export.py",
    "quick_matching.py",
    "parts/variants.py",
    "parts/precision.py",
)
_RUNTIME: Final = ("adapters.py", "calls.py", "capture.py")
MOST_BYTES: Final = 20 << 30
"""Of kept exports; the ones that were used longest ago go first."""


def fingerprint_of(
    part: Part, precision: Precision, requests: Sequence[TaskRequest], weights_digest: str, opset: int
) -> str:
    """SHA-256 over declaration, requests, weights, sources and versions."""
    total = hashlib.sha256(f"{part!r} {precision} {weights_digest} {opset}".encode())
    for request in requests:
        total.update(request.model_dump_json().encode())
    for package, names in ((optimize, _SOURCES), (runtime, _RUNTIME)):
        folder = Path(str(package.__file__)).parent
        for file in [folder / name for name in names] + sorted((folder / "int8").glob("*.py")):
            if file.is_file():
                total.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    for package_name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            total.update(f"{package_name}=={metadata.version(package_name)}\n".encode())
    return total.hexdigest()


def exports_folder() -> Path:
    """Where exports are kept: the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "reelmesh" / "exports"


def kept_export(fingerprint: str, make: Callable[[Path], None], *, force: bool = False) -> Path:
    """The folder of an export, made if it is not kept.

    Args:
        fingerprint: of the export.
        make: fills an empty folder.
        force: make it again, whatever is kept.
    """
    target = exports_folder() / fingerprint
    if target.is_dir() and not force:
        os.utime(target)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".making-") as scratch:
        made = Path(scratch) / "export"
        made.mkdir()
        make(made)
        shutil.rmtree(target, ignore_errors=True)
        with suppress(OSError):  # another process was faster
            made.rename(target)
    _prune(target)
    return target


def _prune(newest: Path) -> None:
    folders = [path for path in newest.parent.iterdir() if path.is_dir() and not path.name.startswith(".")]
    left = MOST_BYTES
    for folder in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True):
        left -= sum(file.stat().st_size for file in folder.iterdir())
        if left < 0 and folder != newest:
            shutil.rmtree(folder, ignore_errors=True)
