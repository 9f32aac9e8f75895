"""Reading checkpoints of these networks into them, key by key; called by the engines that load them.

The one invariant: every parameter comes from the file, with the name and shape that the network gives it, or the load
fails before any traffic with the names that do not fit.
"""

import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from serving.errors import BadInput, MissingDependency, foreign_text
from serving.repository.model import Model
from serving.weights.held import HeldWeights

NAMED_AT_MOST: Final = 3
"""Keys a message names of each kind."""

Network = TypeVar("Network", bound=nn.Module)
Weights = Mapping[str, torch.Tensor]


def read_checkpoint(path: Path, *, pickles: bool = False) -> Mapping[str, object]:
    """What a ``.safetensors`` file holds, or, where ``pickles`` allows it, a torch file (.pth, .pt, .tar, .p).

    Torch files are read with ``weights_only=True``: tensors and plain containers, no code. A pickled whole module is
    refused by that, and by this.

    Returns:
        Names to tensors, or to further mappings of them, on the CPU.

    Raises:
        MissingDependency: no such file.
        BadInput: truncated, of no known format, or a pickle that is not allowed.
    """
    if not path.is_file():
        raise MissingDependency(f"there is no file {path.name}", field="weights", fix="fetch the model's weights")
    try:
        if path.suffix == ".safetensors":
            loaded: Mapping[str, object] = load_file(path)
            return loaded
        if not pickles:
            raise BadInput(
                f"{path.name} is a pickle", field="weights", fix="convert it to safetensors, or allow it by name"
            )
        held = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"{path.name} cannot be read as weights ({foreign_text(error)})",
            field="weights",
            fix="fetch the file again; of a pickled module, keep the state_dict alone",
        ) from error
    if not isinstance(held, Mapping):
        raise BadInput(
            f"{path.name} holds a {type(held).__name__}, not names and tensors",
            field="weights",
            fix="save the state_dict alone",
        )
    return held


def find_checkpoint(folder: Path, allow_pickles: Sequence[str] = ()) -> Path:
    """The one file with weights in a folder: safetensors, or else a pickle that the card names.

    Args:
        folder: of the model's weights.
        allow_pickles: the card's ``source.allow_pickles``, names or patterns.

    Raises:
        MissingDependency: there is none.
        BadInput: there are several.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found = [path for path in files if path.suffix == ".safetensors"]
    found = found or [path for path in files if any(fnmatchcase(path.name, pattern) for pattern in allow_pickles)]
    if not found:
        raise MissingDependency(
            "there is no checkpoint among the weights",
            field="source.uri",
            fix="put the one .safetensors file there, or name its pickle in source.allow_pickles",
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:NAMED_AT_MOST])
        raise BadInput(f"there are several checkpoints: {names}", field="source.files", fix="name one of them")
    return found[0]


def read_held(model: Model, weights: HeldWeights) -> Mapping[str, object]:
    """The one checkpoint among a model's weights; see :func:`find_checkpoint` and :func:`read_checkpoint`."""
    allowed = model.card.source.allow_pickles
    return read_checkpoint(find_checkpoint(weights.folder, allowed), pickles=bool(allowed))


def part(checkpoint: Mapping[str, object], *names: str) -> dict[str, torch.Tensor]:
    """The tensors under one of ``names``: a nested mapping, or a flat one with ``name.`` before its keys.

    Without a match the checkpoint itself. ``module.``, which DataParallel puts before every key, is taken off.
    """
    held: Mapping[str, object] = checkpoint
    for name in names:
        nested = checkpoint.get(name)
        flat = {key.removeprefix(f"{name}."): value for key, value in checkpoint.items() if key.startswith(f"{name}.")}
        if isinstance(nested, Mapping) or flat:
            held = nested if isinstance(nested, Mapping) else flat
            break
    tensors = {key: value for key, value in held.items() if isinstance(value, torch.Tensor)}
    if tensors and all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def build(make: Callable[[], Network], weights: Weights, what: str, *, unused: Sequence[str] = ()) -> Network:
    """A network with these weights, in evaluation mode, on their device; nothing is initialised in vain.

    Args:
        make: makes the network.
        weights: its parameters and buffers by name.
        what: how messages call the network.
        unused: beginnings of keys that training needed and serving does not.

    Raises:
        BadInput: keys are missing, are not the network's, or have another shape or no floating type.
    """
    with torch.device("meta"):
        network = make()
    wanted = network.state_dict()
    given = {key: value for key, value in weights.items() if not key.startswith(tuple(unused))} if unused else weights
    _check(wanted, given, what)
    network.load_state_dict(dict(given), assign=True)
    return network.requires_grad_(False).eval()


def _check(wanted: Weights, given: Weights, what: str) -> None:
    problems = [
        _named("lacks", wanted.keys() - given.keys()),
        _named("has besides", given.keys() - wanted.keys()),
        _named(
            "has in another shape",
            (
                f"{key} {list(given[key].shape)}, not {list(wanted[key].shape)}"
                for key in wanted.keys() & given.keys()
                if wanted[key].shape != given[key].shape
            ),
        ),
        _named(
            "has in another type",
            (
                f"{key} {given[key].dtype}"
                for key in wanted.keys() & given.keys()
                if wanted[key].is_floating_point() != given[key].is_floating_point()
            ),
        ),
    ]
    found = [problem for problem in problems if problem]
    if found:
        raise BadInput(
            f"the checkpoint does not fit {what}: {'; '.join(found)}",
            field="weights",
            fix="name a checkpoint of this network's published layout",
        )


def _named(verb: str, keys: Iterable[str]) -> str:
    ordered = sorted(keys)
    more = f" and {len(ordered) - NAMED_AT_MOST} more" if len(ordered) > NAMED_AT_MOST else ""
    return f"{verb} {', '.join(ordered[:NAMED_AT_MOST])}{more}" if ordered else ""
