"""The address of a model's weights (``source.uri`` of model.yaml), taken apart; used by lint and by serving.weights.

The one invariant: an address that is read here names one place, and nothing in it leads out of that place.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal, get_args

from serving.errors import BadInput, shown

Kind = Literal["builtin", "wheel", "export", "file", "hf", "s3", "mlflow", "dvc"]
FETCHED: Final = frozenset({"hf", "s3", "mlflow", "dvc"})
"""Kinds whose files are copied into the node's cache."""
RECORDS: Final = frozenset({"builtin", "wheel", "export"})
"""Kinds that only say where something came from; nothing is fetched."""

_MAX_CHARS: Final = 2048
_FORMS: Final = {
    "hf": re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII),
    "s3": re.compile(r"//[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\x00-\x1f]*)?"),
    "mlflow": re.compile(r"models/[^/\x00-\x1f]{1,256}/[0-9]{1,9}|runs/[0-9a-zA-Z]{1,64}(/[^\x00-\x1f]*)?"),
    "file": re.compile(r"[^\x00-\x1f]+"),
    "dvc": re.compile(r"[^\x00-\x1f]+"),
}
_WRITE: Final = {
    "hf": "write hf:owner/name",
    "s3": "write s3://bucket/prefix",
    "mlflow": "write mlflow:models/NAME/VERSION or mlflow:runs/RUN_ID/path",
    "file": "write file:/absolute/folder or file:folder beside model.yaml",
    "dvc": "write dvc:path/in/repository",
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where weights are.

    Args:
        kind: the scheme.
        place: what follows the scheme, without ``//``: ``owner/name``, ``bucket/prefix``, a path.
    """

    kind: Kind
    place: str


def read_address(uri: str) -> Address:
    """Take ``source.uri`` apart.

    Raises:
        BadInput: an unknown scheme, or an address that does not have its scheme's form.
    """
    scheme, colon, rest = uri.partition(":")
    kinds: tuple[Kind, ...] = get_args(Kind)
    kind = next((kind for kind in kinds if kind == scheme), None)
    if not colon or kind is None or len(uri) > _MAX_CHARS:
        fix = f"begin it with {', '.join(f'{kind}:' for kind in kinds[:-1])} or {kinds[-1]}:"
        raise BadInput(f"{shown(uri)} is no address of weights", field="source.uri", fix=fix)
    if kind in RECORDS:
        return Address(kind, rest)
    if not _FORMS[kind].fullmatch(rest) or (kind in {"s3", "mlflow"} and _climbs(rest)):
        raise BadInput(f"{shown(uri)} does not have the form of its scheme", field="source.uri", fix=_WRITE[kind])
    # file:///folder and file:/folder are one.
    return Address(kind, re.sub(r"^//", "", rest) if kind == "s3" else re.sub(r"^///?(?=[^/])", "/", rest))


def _climbs(path: str) -> bool:
    return ".." in path.split("/")
