"""Triton's configuration of an exported part, and which version of it a mesh serves; used by served and by export.

The one invariant: Triton serves the version that the model's card chooses, with that version's own tensors: a folder's
config.pbtxt tells of the newest alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tritonclient.grpc import model_config_pb2 as pb

from serving.errors import BadInput, ReelmeshError
from serving.repository.model import Model, ModelCard, Optimized
from serving.repository.part_file import PartFile, PartTensor, read_part

TYPES: Final[Mapping[str, str]] = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "float64": "TYPE_FP64",
    "uint8": "TYPE_UINT8",
    "int8": "TYPE_INT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "bool": "TYPE_BOOL",
}
"""Names of dtypes in ``part.json`` to config.pbtxt's."""

_EXPORTED: Final = "export:"


def part_source(model: str, part: str) -> str:
    """The ``source.uri`` of a part's own card."""
    return f"{_EXPORTED}{model}.{part}"


def owner_of(card: ModelCard) -> str | None:
    """The model that a part belongs to, by the part's own card; None for anything else."""
    uri = card.source.uri
    owner, dot, _ = uri.removeprefix(_EXPORTED).rpartition(".")
    return owner if uri.startswith(_EXPORTED) and dot else None


def write_tensors(config: pb.ModelConfig, part: PartFile) -> None:
    """Let a configuration declare the tensors of a part's first variant; -1 is an axis that varies.

    Raises:
        BadInput: Triton has no such type.
    """
    first = part.variants[0]
    for entries, tensors in ((config.input, first.inputs), (config.output, first.outputs)):
        del entries[:]
        for tensor in tensors:
            dims = [axis if isinstance(axis, int) else -1 for axis in tensor.axes]
            entries.add(name=tensor.name, data_type=_type(tensor), dims=dims)


def chosen_version(chosen: Optimized, folder: Path, versions: Sequence[int]) -> int | None:
    """The version that a card means, of those there are; None where it is not there.

    Without a number it is the newest in a floating precision: an INT8 version differs more from torch, so that trying
    one must not change what runs.

    Args:
        chosen: by the card.
        folder: of the part.
        versions: in it.
    """
    if chosen.version is not None:
        return chosen.version if chosen.version in versions else None
    return next((version for version in sorted(versions, reverse=True) if not _is_int8(folder / str(version))), None)


def _is_int8(version: Path) -> bool:
    """False where it cannot be read: who then reads it says why."""
    try:
        return read_part(version).precision == "int8"
    except ReelmeshError:
        return False


def served_parts(models: Iterable[Model], known: Mapping[str, Model]) -> dict[str, Model]:
    """The part models that Triton runs for models whose cards say so, each in the version that is chosen."""
    found: dict[str, Model] = {}
    for model in models:
        for chosen in model.card.optimized.values():
            if chosen.runtime == "triton" and chosen.model in known:
                found[chosen.model] = pinned(known[chosen.model], model.card)
    return found


def pinned(part: Model, owner: ModelCard) -> Model:
    """A part's model as Triton shall serve it; as its folder says where its owner's card does not let Triton run it.

    Raises:
        BadInput: the version's ``part.json`` cannot be read.
        NotFound: it has none.
    """
    uses = [chosen for chosen in owner.optimized.values() if chosen.model == part.name and chosen.runtime == "triton"]
    version = chosen_version(uses[0], part.folder, part.versions) if uses else None
    if version is None:
        return part
    config = pb.ModelConfig()
    config.CopyFrom(part.config)
    config.version_policy.CopyFrom(pb.ModelVersionPolicy(specific={"versions": [version]}))
    write_tensors(config, read_part(part.folder / str(version)))
    return Model(part.name, part.folder, part.card, config, part.versions)


def _type(tensor: PartTensor) -> int:
    if tensor.dtype not in TYPES:
        raise BadInput(f"Triton has no type {tensor.dtype}", field=tensor.name, fix="cast it in the part's module")
    return int(pb.DataType.Value(TYPES[tensor.dtype]))
