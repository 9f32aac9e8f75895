"""What is done to a copy of a checkpoint so that it no longer fits; used by the tests of families.

The one invariant: safetensors files stay whole unless they are what is damaged.
"""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

WEIGHTS = "model.safetensors"


def tensors(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    """Other tensors in the file."""
    held = load_file(folder / WEIGHTS)
    change(held)
    save_file(held, folder / WEIGHTS, metadata={"format": "pt"})


def without(key: str) -> Callable[[Path], None]:
    """A key is missing."""
    return lambda folder: tensors(folder, lambda held: held.pop(key))


def with_one_more(folder: Path) -> None:
    """A key that no network has."""
    tensors(folder, lambda held: held.update(other=np.zeros(3, np.float32)))


def narrowed(key: str, length: int) -> Callable[[Path], None]:
    """The last side of a tensor is shorter."""
    return lambda folder: tensors(folder, lambda held: held.update({key: held[key][..., :length].copy()}))


def cut(name: str) -> Callable[[Path], None]:
    """The second half of a file is not there."""

    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return damage


def removed(name: str) -> Callable[[Path], None]:
    """A file is not there."""
    return lambda folder: (folder / name).unlink()


def pickled(folder: Path) -> None:
    """A pickle in the place of the weights."""
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": 1}))


def settings(folder: Path, name: str, **values: object) -> None:
    """Other settings in a JSON file; None takes one out."""
    file = folder / name
    found = json.loads(file.read_text()) | values
    file.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))
