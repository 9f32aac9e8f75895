"""Finds artifact references inside values; used when a job is submitted and when a stage has finished.

The one invariant: order is that of first appearance, and each artifact is listed once.
"""

from collections.abc import Iterator, Mapping

from pydantic import BaseModel, JsonValue

from serving.protocol.artifact import ArtifactRef

Path = tuple[str | int, ...]


def walk_refs(value: object, path: Path = ()) -> Iterator[tuple[Path, ArtifactRef]]:
    """Every reference in a pydantic model, mapping, list or tuple, with the path that leads to it."""
    if isinstance(value, ArtifactRef):
        yield path, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from walk_refs(getattr(value, name), (*path, name))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from walk_refs(item, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from walk_refs(item, (*path, index))


def refs_in(value: object, *, limit: int) -> list[ArtifactRef]:
    """The first ``limit`` distinct references in a value."""
    found: dict[str, ArtifactRef] = {}
    for _, ref in walk_refs(value):
        found.setdefault(ref.sha256, ref)
        if len(found) == limit:
            break
    return list(found.values())


def first_file_name(value: JsonValue) -> str | None:
    """The name of the first reference in JSON, in its order; None where there is none."""
    if isinstance(value, dict):
        name = value.get("name")
        if isinstance(value.get("sha256"), str) and isinstance(name, str):
            return name
        value = list(value.values())
    if isinstance(value, list):
        return next((name for item in value if (name := first_file_name(item))), None)
    return None
