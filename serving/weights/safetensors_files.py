"""What safetensors files say they hold, read without torch; used by the weights cache, verify and engines.

The one invariant: a layout that is returned describes the file to its last byte: every tensor lies in the file, none
overlaps another, nothing is left over. (The format: https://huggingface.co/docs/safetensors, "Format".)
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from serving.errors import BadInput, shown

MAX_HEADER_BYTES: Final = 100_000_000
"""The safetensors library's own bound."""
MAX_INDEX_BYTES: Final = 100_000_000
MAX_SHARDS: Final = 10_000
INDEX_SUFFIX: Final = ".safetensors.index.json"
BITS: Final[Mapping[str, int]] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
"""Bits of one element by dtype (safetensors 0.8, tensor.rs)."""
_LENGTH_BYTES: Final = 8
_MAX_RANK: Final = 64
_SHOWN_KEYS: Final = 3
_FIX: Final = "fetch or convert the file again"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor.

    Args:
        dtype: a key of :data:`BITS`.
        shape: empty for a scalar.
        begin: of its bytes, counted from the end of the header.
        end: one past its last byte.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors of one file by name; reads the header alone and compares it with the file's size.

    Raises:
        BadInput: the file is truncated, too long, or its header is not one.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(_LENGTH_BYTES)
        if len(start) < _LENGTH_BYTES:
            raise _bad(path, f"has {size} bytes, too few for a safetensors file")
        length = int.from_bytes(start, "little")
        if length > MAX_HEADER_BYTES:
            raise _bad(path, f"says that its header has {length} bytes, over {MAX_HEADER_BYTES}: no safetensors file")
        header = stream.read(length)
    if len(header) < length:
        raise _bad(path, f"is truncated: its header has {length} bytes, the file {size}")
    return parse_header(header, size - _LENGTH_BYTES - length, path)


def parse_header(header: bytes, data_bytes: int, path: Path) -> dict[str, TensorInfo]:
    """As :func:`read_header`, from the header's bytes and the number of bytes that follow it."""
    told = _json(header, path)
    notes = told.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(value, str) for value in notes.values()):
        raise _bad(path, "is damaged: its __metadata__ is no map of texts")
    tensors = {name: _tensor(name, value, path) for name, value in told.items()}
    spans = sorted((info.begin, info.end, name) for name, info in tensors.items())
    for (_, end, before), (begin, _, name) in pairwise([(0, 0, "the header"), *spans]):
        if begin != end:
            problem = f"tensor {shown(name)} begins at byte {begin}, where {shown(before)} ends at {end}"
            raise _bad(path, problem + (": they overlap" if begin < end else ": a hole"))
    total = spans[-1][1] if spans else 0
    if total > data_bytes:
        raise _bad(path, f"is truncated: its tensors have {total} bytes, {data_bytes} of them are there")
    if total < data_bytes:
        raise _bad(path, f"is {data_bytes - total} bytes longer than its tensors")
    return tensors


def read_layout(path: Path) -> dict[str, TensorInfo]:
    """The tensors of a file, of the shards that an index (``*.safetensors.index.json``) names, or of a folder.

    Of a folder, its indexes are read, else every ``*.safetensors`` file in it (not in folders below).

    Raises:
        BadInput: a file is damaged, a shard is missing, two files hold one name, or there is none.
    """
    if path.is_dir():
        indexes = sorted(path.glob(f"*{INDEX_SUFFIX}"))
        return _joined(indexes or sorted(path.glob("*.safetensors")), path)
    return _read_sharded(path) if path.name.endswith(INDEX_SUFFIX) else read_header(path)


def read_index(path: Path) -> dict[str, str]:
    """The ``weight_map`` of an index: names of tensors and the shard that holds each, in the index's own folder.

    Raises:
        BadInput: it is no index, or names a file elsewhere.
    """
    if path.stat().st_size > MAX_INDEX_BYTES:
        raise _bad(path, f"is over {MAX_INDEX_BYTES} bytes")
    found = _json(path.read_bytes(), path).get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(shard, str) for shard in found.values()):
        raise _bad(path, "has no weight_map of names to files")
    shards = set(found.values())
    if len(shards) > MAX_SHARDS or any(Path(shard).name != shard or shard in {"", ".", ".."} for shard in shards):
        raise _bad(path, "names shards outside its own folder, or too many")
    return found


def compare(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], *, where: str | Path
) -> None:
    """Raise one :class:`BadInput` that names missing, extra and misshapen keys: how many, and the first few of each.

    Args:
        expected: names and shapes that the model's code has.
        found: names and shapes that the checkpoint has.
        where: the file or folder, for the message.
    """
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    misshapen = [
        f"{shown(name)} is {list(found[name])}, not {list(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    parts = [_told("missing", [shown(name) for name in missing]), _told("extra", [shown(name) for name in extra])]
    problem = "; ".join(part for part in [*parts, _told("misshapen", misshapen)] if part)
    if problem:
        fix = "point source at a checkpoint of this architecture, or correct the model's options"
        raise BadInput(f"the checkpoint does not fit the model: {problem}", field=str(where), fix=fix)


def _told(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN_KEYS} more" if len(names) > _SHOWN_KEYS else ""
    return f"{len(names)} {what} ({', '.join(names[:_SHOWN_KEYS])}{more})"


def _read_sharded(index: Path) -> dict[str, TensorInfo]:
    by_shard: dict[str, set[str]] = {}
    for name, shard in read_index(index).items():
        by_shard.setdefault(shard, set()).add(name)
    if absent := sorted(shard for shard in by_shard if not (index.parent / shard).is_file()):
        raise _bad(index, _told("missing shards", absent))
    tensors: dict[str, TensorInfo] = {}
    for shard, names in sorted(by_shard.items()):
        header = read_header(index.parent / shard)
        if lacking := sorted(names - header.keys()):
            raise _bad(index.parent / shard, "lacks what its index promises: " + _told("missing", lacking))
        tensors |= {name: header[name] for name in names}
    return tensors


def _joined(paths: list[Path], folder: Path) -> dict[str, TensorInfo]:
    if not paths:
        raise BadInput("holds no safetensors file", field=str(folder), fix="point source at a folder that holds some")
    tensors: dict[str, TensorInfo] = {}
    for path in paths:
        found = read_layout(path)
        if twice := sorted(tensors.keys() & found.keys()):
            raise _bad(path, _told("tensors that another file holds too", twice))
        tensors |= found
    return tensors


def _json(data: bytes, path: Path) -> dict[str, Any]:
    try:
        told = json.loads(data.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _bad(path, "is damaged: its header is not JSON with distinct names") from error
    if not isinstance(told, dict):
        raise _bad(path, "is damaged: its header is no JSON object")
    return told


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _tensor(name: str, told: object, path: Path) -> TensorInfo:
    match told:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]} if (
            dtype in BITS and len(shape) <= _MAX_RANK and all(_is_size(size) for size in [*shape, begin, end])
        ):
            bits = math.prod(shape) * BITS[dtype]
            if bits == (end - begin) * 8:
                return TensorInfo(dtype, tuple(shape), begin, end)
            raise _bad(path, f"tensor {shown(name)} takes {end - begin} bytes, not what {dtype} {shape} needs")
        case {"dtype": str(dtype)} if dtype not in BITS:
            raise _bad(path, f"tensor {shown(name)} has an unknown dtype {shown(dtype)}")
    raise _bad(path, f"is damaged: its header describes tensor {shown(name)} as {shown(told)}")


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _bad(path: Path, problem: str) -> BadInput:
    return BadInput(problem, field=str(path), fix=_FIX)
