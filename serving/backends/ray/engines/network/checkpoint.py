"""Checkpoints read by libraries, and what does not fit in them as one line; used by engines in ``load``.

The one invariant: a network comes out whole, with every number from the checkpoint, or not at all.
"""

import contextlib
import logging
import pickle
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypedDict, TypeVar

from serving.backends.ray.engines.network.faults import is_out_of_memory
from serving.errors import BadInput, ReelmeshError, foreign_text
from serving.repository.model import Model
from serving.weights.safetensors_files import TensorInfo, read_header

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

T = TypeVar("T")
Network = TypeVar("Network", bound="PreTrainedModel")

_NAMED: Final = 3
"""Keys that a message names; the others are counted."""
_FRACTIONS: Final = re.compile(r"B?F\d")
"""Dtypes of safetensors that hold fractions: F32, F16, BF16, F8_E4M3."""
_CONFIG: Final = "config.json"
_FIX: Final = "use the checkpoint that belongs to this network, whole"


class LoadingInfo(TypedDict, total=False):
    """What transformers tells about a load: keys, and of those that are misshapen the shapes in file and network."""

    missing_keys: Collection[str]
    unexpected_keys: Collection[str]
    mismatched_keys: Collection[tuple[str, Collection[int], Collection[int]]]


def pretrained(network: type[Network], model: Model, folder: Path, device: str, *, dtype: "torch.dtype") -> Network:
    """``from_pretrained`` of a transformers class, from the disk alone, straight to the device, in evaluation mode.

    Args:
        network: the class.
        model: its card says which pickles may be read.
        folder: with ``config.json`` and the weights.
        device: ``cpu`` or ``cuda:N``.
        dtype: of the weights in memory.

    Raises:
        BadInput: no such files, or keys that are missing, unknown or of another shape.
    """
    if not (folder / _CONFIG).is_file():  # without one, the library takes the class's defaults
        raise BadInput(f"there is no {_CONFIG}", field=f"{model.name}: {folder.name}", fix=_FIX)
    pickles = bool(model.card.source.allow_pickles)

    def load() -> "tuple[Network, LoadingInfo]":
        loaded: tuple[Network, LoadingInfo] = network.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=None if pickles else True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            device_map=device,
            dtype=dtype,
        )
        return loaded

    with quiet():
        loaded, info = reading(model.name, load, folder)
    check_info(info, field=f"{model.name}: {folder.name}")
    whole = [path for path in sorted(folder.glob("*.safetensors")) if "." not in path.stem]  # a variant has one
    tensors = {name: tensor for path in whole for name, tensor in read_header(path).items()}
    check_types(loaded.state_dict(), tensors, field=f"{model.name}: {folder.name}")
    loaded.eval()
    return loaded


def reading(name: str, load: Callable[[], T], folder: Path) -> T:
    """What ``load`` reads, or one line about what is wrong with the files.

    Raises:
        BadInput: whatever the library raised about a file; memory that ends is no fault of one, and goes on.
    """
    try:
        return load()
    except ReelmeshError:
        raise
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, AssertionError, pickle.UnpicklingError,
    ) as error:  # fmt: skip
        if is_out_of_memory(error):
            raise
        field = f"{name}: {folder.name}"
        raise BadInput(f"{type(error).__name__}: {foreign_text(error)}", field=field, fix=_FIX) from error


def check_info(info: LoadingInfo, *, field: str) -> None:
    """Look at what transformers tells about a load (``output_loading_info``).

    Raises:
        BadInput: names the keys.
    """
    mismatched = [(str(key), tuple(found), tuple(wanted)) for key, found, wanted in info.get("mismatched_keys", ())]
    check_keys(info.get("missing_keys", ()), info.get("unexpected_keys", ()), mismatched, field=field)


def check_shapes(found: Mapping[str, Collection[int]], wanted: Mapping[str, Collection[int]], *, field: str) -> None:
    """Compare the shapes in a checkpoint with those of the network, by key.

    Raises:
        BadInput: names the keys.
    """
    mismatched = [
        (key, tuple(found[key]), tuple(shape))
        for key, shape in wanted.items()
        if key in found and tuple(found[key]) != tuple(shape)
    ]
    check_keys(wanted.keys() - found.keys(), found.keys() - wanted.keys(), mismatched, field=field)


def check_types(state: "Mapping[str, torch.Tensor]", tensors: Mapping[str, TensorInfo], *, field: str) -> None:
    """Refuse whole numbers where a network has fractions: libraries cast them, and quantised weights lose their scales.

    Args:
        state: of the network, by key.
        tensors: of the checkpoint, by key.
        field: the model and its folder or file.

    Raises:
        BadInput: in one line, with up to three keys.
    """
    wrong = [
        f"{key} in {tensor.dtype}"
        for key, tensor in sorted(tensors.items())
        if key in state and state[key].is_floating_point() and not _FRACTIONS.match(tensor.dtype)
    ]
    if wrong:
        fix = "use a checkpoint in F32, F16 or BF16"
        raise BadInput(f"an unsupported dtype: {_some('the checkpoint has', wrong)}", field=field, fix=fix)


def check_keys(
    missing: Collection[str],
    unknown: Collection[str],
    mismatched: Collection[tuple[str, tuple[int, ...], tuple[int, ...]]],
    *,
    field: str,
) -> None:
    """Refuse a checkpoint that does not fit its network.

    Args:
        missing: keys that the network has and the file has not.
        unknown: keys that the file has and the network has not.
        mismatched: key, shape in the file, shape in the network.
        field: the model and its folder or file.

    Raises:
        BadInput: in one line, with up to three keys of each kind.
    """
    parts = []
    if mismatched:
        told = [f"{key} is {_shape(found)} and not {_shape(wanted)}" for key, found, wanted in sorted(mismatched)]
        parts.append(_some("misshapen", told))
    if missing:
        parts.append(_some("missing", sorted(missing)))
    if unknown:
        parts.append(_some("unknown", sorted(unknown)))
    if parts:
        raise BadInput(f"the checkpoint does not fit the network: {'; '.join(parts)}", field=field, fix=_FIX)


def _some(kind: str, told: list[str]) -> str:
    more = f" and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
    return f"{kind} {', '.join(told[:_NAMED])}{more}"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape) or "a number"


@contextlib.contextmanager
def quiet(library: str = "transformers") -> Iterator[None]:
    """The library's own report of keys, a table in colours, says what our error says in a line; bars are for people."""
    if library == "transformers":
        from transformers.utils import logging as bars

        bars.disable_progress_bar()
    logger = logging.getLogger(library)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
