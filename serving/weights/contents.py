"""Whether files are what they say, by their content: pickles, safetensors, indexes; used after fetching and by verify.

The one invariant: nothing here loads, unpickles or runs any part of a file.
"""

import pickletools
import zipfile
from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Final

from serving.errors import BadInput
from serving.weights.safetensors_files import INDEX_SUFFIX, read_header, read_index
from serving.weights.selection import matches, pickle_by_name, pickle_refused

HEAD_BYTES: Final = 4096
_OPS: Final = 16
"""Opcodes that a pickle of protocol 0 or 1, which has no magic number, must have to count as one."""
_PROTOCOLS: Final = frozenset(range(2, 6))
_MAX_MEMBERS: Final = 100_000


def pickle_by_head(head: bytes, name: str) -> bool:
    """Whether the first bytes of a file (up to :data:`HEAD_BYTES`) are those of a bare pickle."""
    if len(head) > 1 and head[0] == 0x80 and head[1] in _PROTOCOLS:  # noqa: PLR2004  the opcode PROTO
        return True
    return (name.endswith(".bin") or pickle_by_name(name)) and _parses(head)


def pickle_by_content(path: Path, name: str) -> bool:
    """Whether a file is a pickle, or a zip archive that holds one, as torch.save writes it."""
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    if pickle_by_head(head, name):
        return True
    if not head.startswith(b"PK\x03\x04"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return True  # an archive that only torch may read is not proven harmless
    return len(members) > _MAX_MEMBERS or any(member.endswith(".pkl") for member in members)


def check_file(path: Path, name: str, allow_pickles: Iterable[str], uri: str) -> None:
    """Check one file.

    Raises:
        BadInput: a pickle that is not allowed, or a damaged safetensors file.
    """
    if pickle_by_content(path, name) and not matches(name, list(allow_pickles)):
        raise pickle_refused(uri, name)
    if name.endswith(".safetensors"):
        read_header(path)


def check_folder(folder: Path, names: Iterable[str], allow_pickles: Iterable[str], uri: str) -> None:
    """Check every file that is named, and that indexes find their shards.

    Raises:
        BadInput: as :func:`check_file`; a shard is missing.
    """
    allowed = list(allow_pickles)
    for name in names:
        check_file(folder / name, name, allowed, uri)
    for problem in missing_shards(folder, names):
        raise problem


def missing_shards(folder: Path, names: Iterable[str]) -> Iterator[BadInput]:
    """One error for each index of which some shards are there and others are not.

    An index without any of its shards belongs to a variant that was not chosen (``source.files``).
    """
    there = set(names)
    for name in sorted(there):
        if not name.endswith(INDEX_SUFFIX):
            continue
        beside = name.rpartition("/")[0]
        shards = {f"{beside}/{shard}" if beside else shard for shard in read_index(folder / name).values()}
        absent = sorted(shards - there)
        if absent and len(absent) < len(shards):
            fix = "complete the source, or add the file to source.files"
            problem = f"{len(absent)} of its {len(shards)} shards are missing, first {absent[0]}"
            yield BadInput(problem, field=str(folder / name), fix=fix)


def _parses(head: bytes) -> bool:
    """Whether the bytes read as the beginning of a pickle without a magic number."""
    try:
        ops = [operation.name for operation, _, _ in islice(pickletools.genops(BytesIO(head)), _OPS)]
    except Exception:  # what pickletools raises for other bytes is not told
        return False
    return len(ops) == _OPS or ops[-1:] == ["STOP"]
