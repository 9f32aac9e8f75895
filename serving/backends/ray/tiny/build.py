"""Makes tiny checkpoints once per machine, and model folders that use them; called by `models tiny` and by tests.

The one invariant: a checkpoint appears in the cache whole or not at all, under a name that tells all it was made of.
"""

import hashlib
import importlib
import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import yaml

from serving.backends.ray.tiny import TINY
from serving.errors import Conflict, MissingDependency, NotFound, foreign_text
from serving.repository.model import Model
from serving.repository.read import CARD_FILE, CONFIG_FILE

Maker = Callable[[Path], Mapping[str, object]]
"""Writes a checkpoint into an empty folder and returns the fields of the card that fit it: limits, options, ...

Sources of parts and adapters among them are addresses relative to the checkpoint: ``file:controlnet``.
"""

_LIBRARIES: Final = ("torch", "diffusers", "transformers", "safetensors", "sentencepiece", "tokenizers", "ctranslate2")
_CARD: Final = "card-changes.yaml"
_OPENING: Final = "Tiny random weights, for trying it out: "


def tiny_folder() -> Path:
    """Where checkpoints are kept: the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "reelmesh" / "tiny"


def tiny_checkpoint(name: str, cache: Path | None = None) -> Path:
    """The folder of a model's tiny checkpoint, made if it is not there.

    Args:
        name: of a model in :data:`TINY`.
        cache: folder of checkpoints; :func:`tiny_folder` without it.

    Raises:
        NotFound: there is no maker for the model.
    """
    module, make = _maker(name)
    target = (cache or tiny_folder()) / f"{name}-{_key(module)}"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as made:
            folder = Path(made) / "checkpoint"
            folder.mkdir()
            try:
                changes = make(folder)
            except ImportError as error:
                problem = f"{error.name or foreign_text(error)} is not installed, which makes a tiny {name}"
                raise MissingDependency(problem, fix="pip install 'reelmesh[models]'") from error
            (folder / _CARD).write_text(yaml.safe_dump(dict(changes)), encoding="utf-8")
            try:
                folder.rename(target)
            except OSError:  # another process was faster
                if not target.is_dir():
                    raise
    return target


def tiny_model_folder(model: Model, into: Path, cache: Path | None = None) -> Path:
    """Write ``<into>/<name>``: the model's folder with its tiny checkpoint as source, on the CPU.

    Args:
        model: as the repository has it.
        into: a folder of models.
        cache: as for :func:`tiny_checkpoint`.

    Raises:
        Conflict: there is a folder of that name that is somebody's own.
    """
    folder = into / model.name
    _check_free(folder)
    checkpoint = tiny_checkpoint(model.name, cache)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model.folder / CONFIG_FILE, folder / CONFIG_FILE)
    card = yaml.safe_load((model.folder / CARD_FILE).read_text(encoding="utf-8"))
    card |= {"precision": "fp32", "memory": None, "share": {"cpu": 0.1}, "replica_group": "tiny"}
    card |= {"optional": False, "default": False}  # served, and reached by its name alone
    card["fallback"] = []  # models that need not be where this one goes
    card |= yaml.safe_load((checkpoint / _CARD).read_text(encoding="utf-8"))
    for extra in [*card.get("adapters", {}).values(), *card.get("parts", {}).values()]:
        extra["source"]["uri"] = f"file:{checkpoint / extra['source']['uri'].removeprefix('file:')}"
    card["description"] = f"{_OPENING}{card['description']}"[:400]
    card["source"] = {"uri": f"file:{checkpoint}", "revision": checkpoint.name.rpartition("-")[2]}
    if allowed := model.card.source.allow_pickles:
        card["source"]["allow_pickles"] = allowed
    (folder / CARD_FILE).write_text(yaml.safe_dump(card, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return folder


def _check_free(folder: Path) -> None:
    """Only what was written here may be written over."""
    card = folder / CARD_FILE
    if card.is_file():
        told = yaml.safe_load(card.read_text(encoding="utf-8"))
        if isinstance(told, dict) and str(told.get("description", "")).startswith(_OPENING):
            return
    if folder.exists():
        fix = "name another folder with --into, or remove it"
        raise Conflict(f"{folder} is there and no tiny model", field="--into", fix=fix)


def _maker(name: str) -> tuple[str, Maker]:
    if name not in TINY:
        raise NotFound(f"no tiny checkpoint of {name!r}", field="MODEL", fix=f"one of {', '.join(sorted(TINY))}")
    module, _, function = TINY[name].partition(":")
    make: Maker = getattr(importlib.import_module(module), function)
    return module, make


def _key(module: str) -> str:
    """Of the makers' sources, which share parts, and the libraries that write; another one is another checkpoint."""
    digest = hashlib.sha256(module.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    for library in _LIBRARIES:
        try:
            digest.update(f"{library}={importlib.metadata.version(library)}\n".encode())
        except importlib.metadata.PackageNotFoundError:
            continue
    return digest.hexdigest()[:12]
