"""All that decides what an export is, as one number, and the folder of exports that it finds again.

The one invariant: what has one fingerprint has the same bytes, so nothing is exported twice on a machine.
"""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Final

import optimize
from optimize.int8.cpu import this_cpu_has_dot_product
from optimize.parts.part import Part
from serving.backends.ray import engines
from serving.backends.ray import parts as runtime
from serving.protocol.tasks import TaskRequest
from serving.repository.model import ModelCard
from serving.repository.part_file import Precision

PACKAGES: Final = ("torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "diffusers", "transformers", "coqui-tts")
_SOURCES: Final = (
    "canonical.py",
    "external.py",
    "fixes.py",
    "diffusion_fixes.py",
    "onnx_export.py",
    "quick_matching.py",
    "parts/build.py",
    "parts/precision.py",
    "parts/variants.py",
)
_RUNTIME: Final = ("adapters.py", "calls.py", "capture.py")
MOST_BYTES: Final = 20 << 30
"""Of kept exports; the ones that were used longest ago go first."""
ABANDONED_S: Final = 24 * 3600.0
"""An export that was begun so long ago has lost its process."""


def fingerprint_of(
    part: Part,
    precision: Precision,
    requests: Sequence[TaskRequest],
    card: ModelCard,
    weights_digest: str,
    opset: int,
) -> str:
    """SHA-256 over declaration, requests, weights, versions, and the sources of exporter, engine and networks.

    Args:
        part: its declaration.
        precision: of the file.
        requests: that show how the part is called.
        card: of the model; it says which engine loads what, and how.
        weights_digest: of all that is loaded from.
        opset: of ONNX.
    """
    loaded = [card.engine, card.task, card.architecture, sorted(card.options.items())]
    narrow = precision == "int8" and not this_cpu_has_dot_product()  # then weights have 7 bits
    total = hashlib.sha256(f"{part!r} {precision} {weights_digest} {opset} {loaded} {narrow}".encode())
    for request in requests:
        total.update(request.model_dump_json().encode())
    for file in _sources(card, precision):
        total.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    for package_name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            total.update(f"{package_name}=={metadata.version(package_name)}\n".encode())
    return total.hexdigest()


def _sources(card: ModelCard, precision: Precision) -> Iterator[Path]:
    """Of the exporter, of what runs a part, and of the engine: its package, and networks that are our own."""
    exporter, runner, engines_at = (Path(str(package.__file__)).parent for package in (optimize, runtime, engines))
    yield from (exporter / name for name in _SOURCES)
    if precision == "int8":
        yield exporter / "parts/quantized.py"
        yield from sorted((exporter / "int8").glob("*.py"))
    yield from (runner / name for name in _RUNTIME)
    own = engines.ENGINES[card.engine][card.task].partition(":")[0].removeprefix(f"{engines.__name__}.").split(".")
    folders = ["network", own[0]] if len(own) > 1 else ["network", "networks"]
    for folder in folders:
        yield from sorted((engines_at / folder).glob("*.py"))
    if len(own) == 1:
        yield engines_at / f"{own[0]}.py"


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
    """Remove what was used longest ago, and what a killed process left; others may do the same at the same time."""
    left = MOST_BYTES
    for folder in sorted(newest.parent.iterdir(), key=_used, reverse=True):
        if folder.name.startswith("."):
            if time.time() - _used(folder) > ABANDONED_S:
                shutil.rmtree(folder, ignore_errors=True)
            continue
        with suppress(FileNotFoundError):
            left -= sum(file.stat().st_size for file in folder.iterdir())
        if left < 0 and folder != newest:
            shutil.rmtree(folder, ignore_errors=True)


def _used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0
