"""Turns what pydantic says of a client's JSON into the mesh's words; used by the job desk and the gateway.

The one invariant: every problem that is told is complete by itself, as ``field: problem: fix``.
"""

import difflib
from collections.abc import Callable, Sequence
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from serving.errors import BadInput, shown
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import Language
from serving.repository.card_problems import fields_at, models_in
from serving.repository.yaml_lines import Location, dotted

PROBLEMS_SHOWN: Final = 5

_PATTERN_FIXES: Final = {
    TypeAdapter(Language).json_schema()["pattern"]: "write a code such as en or en-IN",
    r"^[^:\n]+$": "leave out colons and line breaks",
}


def bad_input(error: ValidationError, schema: type[BaseModel], root: str = "") -> BadInput:
    """What pydantic found, as one error of the mesh.

    Args:
        error: of a model that a client's JSON was checked against.
        schema: that model.
        root: the part of the body that was checked, put before every field.

    Returns:
        The first problem with its field and fix; up to four others follow in the text after ``; ``, each as
        ``field: problem: fix``.
    """
    details = _without_echoes(error.errors(include_url=False), schema)
    first, *others = [_told(detail, schema, root) for detail in details[:PROBLEMS_SHOWN]]
    more = len(details) - PROBLEMS_SHOWN
    also = [*map(str, others), *([f"and {more} more"] if more > 0 else [])]
    return BadInput(first.problem, field=first.field, fix="; ".join([first.fix or "", *also]))


def _without_echoes(details: Sequence[ErrorDetails], schema: type[BaseModel]) -> list[ErrorDetails]:
    """Leave out the missing fields that a misspelt one explains."""
    meant = {
        (*detail["loc"][:-1], _near(detail["loc"], schema)) for detail in details if detail["type"] == "extra_forbidden"
    }
    return [detail for detail in details if detail["type"] != "missing" or detail["loc"] not in meant]


def _near(location: Location, schema: type[BaseModel]) -> str | None:
    return next(iter(difflib.get_close_matches(str(location[-1]), fields_at(location[:-1], schema), n=1)), None)


def _told(detail: ErrorDetails, schema: type[BaseModel], root: str) -> BadInput:
    location = (root, *detail["loc"]) if root else detail["loc"]
    problem, fix = _words(detail, schema)
    return BadInput(problem, field=dotted(location), fix=fix)


def _words(detail: ErrorDetails, schema: type[BaseModel]) -> tuple[str, str]:
    """Problem and fix."""
    message = (detail["msg"][:1].lower() + detail["msg"][1:]).replace(" after validation", "")
    context: dict[str, Any] = detail.get("ctx", {})
    fix_of = _FIXES.get(detail["type"])
    fix = fix_of(context) if fix_of else f"change {shown(detail['input'])}"
    match detail["type"]:
        case "extra_forbidden":
            message, fix = "there is no such field", _other_field(detail["loc"], schema)
        case "string_too_short" if not detail["input"]:
            message = f"it is empty, and needs at least {_count(context['min_length'], 'character')}"
            fix = "write some text"
        case "string_too_long":
            fix = f"shorten it: it has {len(detail['input']):,} characters"
        case "string_pattern_mismatch":
            message = f"{shown(detail['input'])} does not have the right form"
            fix = _PATTERN_FIXES.get(context["pattern"], f"match {context['pattern']}")
        case "too_short" | "too_long":
            bound = context.get("min_length", context.get("max_length", 0))
            fix = f"give {bound}{_of_what(detail['loc'], schema)}"
        case "value_error":
            text = detail["msg"].removeprefix("Value error, ")
            problem, colon, rest = text.rpartition(": ")
            message, fix = (problem, rest) if colon else (text, "change it")
        case _ if context.get("class_name") == ArtifactRef.__name__:
            fix = "upload the file by POST /v1/artifacts, and send the reference that it answers"
    return message, fix


_FIXES: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "missing": lambda _: "add the field",
    "string_too_short": lambda _: "write more",
    "string_type": lambda _: "write text, in quotes where it looks like a number",
    "int_type": lambda _: "write a whole number, such as 3",
    "int_parsing": lambda _: "write a whole number, such as 3",
    "int_from_float": lambda _: "write a whole number, such as 3",
    "float_type": lambda _: "write a number, such as 2.5",
    "float_parsing": lambda _: "write a number, such as 2.5",
    "finite_number": lambda _: "write a number, such as 2.5",
    "bool_type": lambda _: "write true or false",
    "bool_parsing": lambda _: "write true or false",
    "list_type": lambda _: "write a list",
    "tuple_type": lambda _: "write a list",
    "dict_type": lambda _: "write fields with their values",
    "model_type": lambda _: "write fields with their values",
    "model_attributes_type": lambda _: "write fields with their values",
    "literal_error": lambda _: "write one of these",
    "enum": lambda _: "write one of these",
    "greater_than": lambda context: f"write a number above {context['gt']:g}",
    "greater_than_equal": lambda context: f"write {context['ge']:g} or more",
    "less_than": lambda context: f"write a number below {context['lt']:g}",
    "less_than_equal": lambda context: f"write {context['le']:g} or less",
    "multiple_of": lambda context: f"write a multiple of {context['multiple_of']:g}",
}
"""By pydantic's type of error, given its context."""


def _other_field(location: Location, schema: type[BaseModel]) -> str:
    near = _near(location, schema)
    if near is not None:
        return f"did you mean {near!r}?"
    return f"remove the field, or correct its spelling: there are {', '.join(fields_at(location[:-1], schema))}"


def _of_what(location: Location, schema: type[BaseModel]) -> str:
    """``, each with name, portrait, voice (one of the two people)`` for a list of models."""
    field = fields_at(location[:-1], schema).get(str(location[-1])) if location else None
    item = next(models_in(field.annotation), None) if field is not None else None
    if item is None:
        return ""
    needed = [name for name, part in item.model_fields.items() if part.is_required()]
    about = (item.__doc__ or "").partition("\n")[0].rstrip(".")
    each = f", each with {', '.join(needed)}" if needed else ""
    return f"{each} ({about[:1].lower()}{about[1:]})" if about else each


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
