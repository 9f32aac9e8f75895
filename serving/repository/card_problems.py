"""Turns pydantic's errors about a person's YAML into findings with line, field and fix; used by repository.read.

The one invariant: every message names what is allowed, in words that need no knowledge of pydantic.
"""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from serving.errors import shown
from serving.repository.findings import Finding
from serving.repository.yaml_lines import Lines, Location, dotted


def findings_from(error: ValidationError, file: Path, lines: Lines, schema: type[BaseModel]) -> Iterator[Finding]:
    """One finding per place that is wrong; a union reports each of its branches, whose fixes are joined by "or"."""
    places: dict[Location, tuple[str, list[str]]] = {}
    for detail in error.errors(include_url=False, include_context=True):
        location = _known_part(detail["loc"], lines, missing=detail["type"] == "missing")
        problem, fix = _words(detail, schema)
        fixes = places.setdefault(location, (problem, []))[1]
        if fix not in fixes:
            fixes.append(fix)
    for location, (problem, fixes) in places.items():
        yield Finding(
            file, lines.of(location), dotted(location), problem, " or ".join(fixes).replace(" or use ", " or ")
        )


def _known_part(location: Location, lines: Lines, *, missing: bool) -> Location:
    """The location without union tags: as far as the file has it, and one further where a key is missing."""
    length = len(location)
    while length > 0 and location[:length] not in lines.by_location:
        length -= 1
    return location[: length + 1] if missing else location[:length]


def _words(detail: ErrorDetails, schema: type[BaseModel]) -> tuple[str, str]:
    context: dict[str, Any] = detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            return "is missing", _purpose(detail["loc"], schema) or "add it"
        case "extra_forbidden":
            return "no such field", _nearest(detail["loc"], schema)
        case "literal_error" | "bool_type" | "bool_parsing":
            return f"{shown(detail['input'])} is not allowed", f"use {context.get('expected', 'true or false')}"
        case "string_type":
            return f"{shown(detail['input'])} is not text", "put it in quotes"
        case "string_pattern_mismatch":
            return f"{shown(detail['input'])} does not have the right form", f"match {context['pattern']}"
    message = detail["msg"][:1].lower() + detail["msg"][1:]
    return f"{shown(detail['input'])}: {message}", _purpose(detail["loc"], schema) or "correct the value"


def _purpose(location: Location, schema: type[BaseModel]) -> str:
    """The field's own description, found by walking the schema along the location."""
    fields = fields_at(location[:-1], schema)
    field = fields.get(str(location[-1])) if location else None
    if field is None:
        return ""
    part = next(models_in(field.annotation), None)
    text = field.description or (part.__doc__ if part is not None else None) or ""
    return text.partition("\n")[0].rstrip(".")


def _nearest(location: Location, schema: type[BaseModel]) -> str:
    names = list(fields_at(location[:-1], schema))
    near = difflib.get_close_matches(str(location[-1]), names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(names)}"


def fields_at(location: Location, schema: type[BaseModel]) -> dict[str, Any]:
    """The fields of the model that stands at a location; indexes and union tags on the way are skipped."""
    current: type[BaseModel] = schema
    for part in location:
        field = current.model_fields.get(str(part))
        found = next(models_in(field.annotation), None) if field is not None else None
        current = found or current
    return dict(current.model_fields)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:  # noqa: ANN401
    """The models that an annotation such as ``list[Speaker] | None`` names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from models_in(inner)
