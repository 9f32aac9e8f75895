"""Documents of several replicas as one: statistics add up, metadata name all versions; used by the mesh's looks.

The one invariant: pure functions; nothing a replica counted is lost, whatever fields its server writes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

Document = Mapping[str, Any]

_LATEST: Final = ("last_inference",)
_LISTS: Final[Mapping[str, tuple[str, ...]]] = {"batch_stats": ("batch_size",), "memory_usage": ("type", "id")}
"""Lists of a model's statistics, and what tells their entries apart."""


def merge_statistics(documents: Iterable[Document]) -> dict[str, Any]:
    """``{"model_stats": [...]}`` of several replicas: counts and times add up, the last inference is the latest."""
    entries = [entry for document in documents for entry in document.get("model_stats", [])]
    return {"model_stats": _merged(entries, ("name", "version"))}


def merge_metadata(documents: Sequence[Document]) -> dict[str, Any]:
    """The first document, with the versions of all of them."""
    versions = {str(version) for document in documents for version in document.get("versions", [])}
    return {**documents[0], "versions": sorted(versions, key=_number)}


def _merged(entries: Iterable[Document], key: Sequence[str]) -> list[dict[str, Any]]:
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    for entry in entries:
        place = tuple(entry.get(name, "") for name in key)
        merged[place] = _sum(merged[place], entry, key) if place in merged else dict(entry)
    return [merged[place] for place in sorted(merged, key=_sortable)]


def _sum(left: Document, right: Document, key: Sequence[str] = ()) -> dict[str, Any]:
    total = dict(left)
    for name, value in right.items():
        mine: Any = total.get(name)
        if name in key:
            continue
        if name in _LATEST:
            total[name] = max(int(mine or 0), int(value))
        elif isinstance(value, dict):
            total[name] = _sum(mine or {}, value)
        elif isinstance(value, list):
            total[name] = _merged([*(mine or []), *value], _LISTS.get(name, ()))
        elif type(value) is int:
            total[name] = value + (mine or 0)
        else:
            total.setdefault(name, value)
    return total


def _sortable(place: tuple[Any, ...]) -> tuple[tuple[int, str], ...]:
    return tuple((_number(part), str(part)) for part in place)


def _number(part: Any) -> int:  # noqa: ANN401  whatever a document holds
    return int(part) if str(part).isascii() and str(part).isdigit() else 0
