"""Loads diffusers' pipelines part by part from a folder, checked against its code; called by DiffusionEngine.

The one invariant: only safetensors of exactly the keys and shapes that the code has become weights; what does not fit
is one line that names the folder and the keys. Nothing asks the network.
"""

import importlib
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final, TypeAlias, TypedDict, TypeGuard, Unpack

from pydantic import JsonValue

from serving.backends.ray.engines.network.checkpoint import check_types
from serving.backends.ray.engines.network.engine import needs
from serving.backends.ray.engines.network.faults import is_out_of_memory
from serving.errors import BadInput, ReelmeshError, foreign_text, shown
from serving.weights.safetensors_files import TensorInfo, compare, read_header

if TYPE_CHECKING:
    import torch
    from diffusers import ModelMixin
    from transformers import PreTrainedModel

    Part: TypeAlias = ModelMixin | PreTrainedModel

INDEX: Final = "model_index.json"
_FIX: Final = "point source at the folder of a whole pipeline, as save_pretrained writes it"
_MOST_SHOWN: Final = 3


class How(TypedDict, total=False):
    """Arguments of ``from_pretrained``.

    Attributes:
        dtype: of the weights in memory.
        variant: of the files, ``fp16``.
        device_map: straight to which device; None leaves them on the host.
    """

    dtype: "torch.dtype"
    variant: str | None
    device_map: dict[str, str] | None


def library(name: str) -> ModuleType:
    """One of the two libraries, told to be quiet.

    Args:
        name: ``diffusers`` or ``transformers``.

    Raises:
        MissingDependency: it is not installed.
    """
    module = needs(lambda: importlib.import_module(name), name)
    logging = importlib.import_module(f"{name}.utils.logging")
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    return module


def read_index(folder: Path, accepted: Collection[str]) -> dict[str, JsonValue]:
    """``model_index.json`` of a pipeline's folder.

    Args:
        folder: of the pipeline.
        accepted: classes of pipelines whose checkpoints will do.

    Raises:
        BadInput: there is none, or it is of another pipeline.
    """
    path = folder / INDEX
    try:
        index = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BadInput(f"there is no {INDEX}", field=str(folder), fix=_FIX) from error
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot be read: {foreign_text(error)}", field=str(path), fix=_FIX) from error
    name = index.get("_class_name") if isinstance(index, dict) else None
    if name not in accepted:
        fix = f"name a checkpoint of {' or '.join(sorted(accepted))}, or another architecture"
        raise BadInput(f"the checkpoint is of {shown(name)}", field=str(path), fix=fix)
    return dict(index)


def load_parts(
    index: Mapping[str, JsonValue],
    folder: Path,
    elsewhere: Mapping[str, Path],
    wanted: Collection[str],
    **how: Unpack[How],
) -> "dict[str, Part]":
    """Load every network of a pipeline.

    Args:
        index: of the folder; its tokenizers and schedulers are left to the pipeline.
        folder: of the pipeline.
        elsewhere: folders of parts that lie apart, by name.
        wanted: parts that the pipeline's class takes.
        how: arguments for every part's ``from_pretrained``.

    Raises:
        BadInput: a part is missing, or does not fit its code.
    """
    found = {}
    for name in wanted:
        place = elsewhere.get(name, folder / name)
        told = index.get(name)
        kind = _class_of(*told, place) if _is_pair(told) else None
        if kind is None and name in elsewhere:
            kind = _class_told(place)
        if kind is not None and hasattr(kind, "_keys_to_ignore_on_load_unexpected"):
            found[name] = load_part(kind, place, **how)
    return found


def load_part(kind: "type[Part]", folder: Path, **how: Unpack[How]) -> "Part":
    """Load one network.

    Args:
        kind: its class in diffusers or transformers.
        folder: with ``config.json`` and safetensors.
        how: as for :func:`load_parts`; what is None is left out.

    Raises:
        BadInput: keys are missing, unexpected or misshapen, a file is damaged or missing, or there are only pickles.
    """
    arguments: dict[str, object] = {key: value for key, value in how.items() if value is not None}
    if kind.__module__.startswith("transformers."):
        arguments["ignore_mismatched_sizes"] = True  # they are told in the loading information
    with naming(folder, kind, how.get("variant")):
        part, information = kind.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True, **arguments
        )
    told = [
        f"{len(keys)} {what} ({', '.join(shown(_name(key)) for key in sorted(keys, key=str)[:_MOST_SHOWN])})"
        for what, keys in (
            ("missing", information["missing_keys"]),
            ("extra", information["unexpected_keys"]),
            ("misshapen", information["mismatched_keys"]),
        )
        if keys
    ]
    if told:
        raise _misfit("; ".join(told), folder)
    check_types(part.state_dict(), read_tensors(folder, how.get("variant")), field=str(folder))
    return part


@contextmanager
def naming(folder: Path, kind: "type[Part] | None" = None, variant: str | None = None) -> Iterator[None]:
    """What a library raises while it reads ``folder`` becomes one line about the folder.

    Args:
        folder: that is read.
        kind: of the network, whose keys are compared to say more.
        variant: of its files.
    """
    try:
        yield
    except ReelmeshError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        if kind is not None:
            _compare(kind, folder, read_tensors(folder, variant))
        raise BadInput(f"cannot be loaded: {foreign_text(error)}", field=str(folder), fix=_FIX) from error


def read_tensors(folder: Path, variant: str | None = None) -> dict[str, TensorInfo]:
    """What the safetensors files of a part say they hold.

    Args:
        folder: of the part.
        variant: ``fp16`` for files named ``*.fp16.safetensors``; None for those without such a mark.

    Raises:
        BadInput: there are none, or one is damaged.
    """
    of_variant = [path for path in sorted(folder.glob("*.safetensors")) if _variant(path) == variant]
    if not of_variant:
        named = f"*.{variant}.safetensors" if variant else "*.safetensors"
        fix = "convert the weights to safetensors, or correct options.variant"
        raise BadInput(f"there is no {named}", field=str(folder), fix=fix)
    return {name: tensor for path in of_variant for name, tensor in read_header(path).items()}


def _variant(path: Path) -> str | None:
    """``fp16`` of ``model.fp16-00001-of-00002.safetensors``."""
    return path.stem.partition(".")[2].partition("-")[0] or None


def _compare(kind: "type[Part]", folder: Path, layout: Mapping[str, TensorInfo]) -> None:
    if not hasattr(kind, "load_config"):
        return
    import torch

    with torch.device("meta"):
        expected = kind.from_config(kind.load_config(str(folder), local_files_only=True)).state_dict()
    found = {name: tensor.shape for name, tensor in layout.items()}
    compare({name: tuple(tensor.shape) for name, tensor in expected.items()}, found, where=folder)


def _misfit(problem: str, folder: Path) -> BadInput:
    fix = "point source at a checkpoint of this architecture, or correct config.json"
    return BadInput(f"the checkpoint does not fit the model: {problem}", field=str(folder), fix=fix)


def _name(key: object) -> str:
    """Of a tensor; misshapen ones come with their shapes."""
    return str(key[0]) if isinstance(key, tuple) else str(key)


def _is_pair(told: object) -> TypeGuard[tuple[str, str]]:
    """Module and class; JSON has them in a list."""
    return isinstance(told, list) and len(told) == 2 and all(isinstance(one, str) for one in told)  # noqa: PLR2004


def _class_of(module: str, name: str, folder: Path) -> "type[Part]":
    from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES, simple_get_class_obj

    try:
        if module not in LOADABLE_CLASSES and not hasattr(library("diffusers").pipelines, module):
            raise AttributeError(module)
        found: type[Part] = simple_get_class_obj(module, name)
    except AttributeError as error:
        problem = f"neither diffusers nor transformers has {shown(f'{module}.{name}')}"
        raise BadInput(problem, field=str(folder), fix="upgrade them, or use another checkpoint") from error
    return found


def _class_told(folder: Path) -> "type[Part]":
    """The class that a part's own ``config.json`` names."""
    try:
        name = json.loads((folder / "config.json").read_bytes())["_class_name"]
        return _class_of("diffusers", str(name), folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"config.json names no class: {foreign_text(error)}", field=str(folder), fix=_FIX) from error
