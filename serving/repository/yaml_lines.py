"""Reads YAML and remembers on which line each value stands; used by repository.read and for people's own YAML.

The one invariant: what comes back is plain data of bounded size and depth, without aliases and without repeated keys.
"""

import contextlib
from dataclasses import dataclass
from typing import Final

import yaml
from pydantic import JsonValue

MAX_DEPTH: Final = 32
"""Deepest nesting accepted; a model card needs four levels."""

Location = tuple[str | int, ...]


class YamlProblem(Exception):
    """The text is not acceptable YAML.

    Args:
        line: counted from 1.
        field: dotted path, or "-".
        problem: what is wrong.
        fix: what to do.
    """

    def __init__(self, line: int, field: str, problem: str, fix: str) -> None:
        super().__init__(problem)
        self.line, self.field, self.problem, self.fix = line, field, problem, fix


@dataclass(frozen=True, slots=True)
class Lines:
    """Where each value of a YAML document stands."""

    by_location: dict[Location, int]

    def of(self, location: Location) -> int:
        """Line of a value, or of its nearest enclosing value (pydantic's locations carry union tags)."""
        for length in range(len(location), 0, -1):
            if (line := self.by_location.get(location[:length])) is not None:
                return line
        return self.by_location.get((), 1)


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader that leaves dates alone: a revision ``2024-01-31`` is text."""


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _FastLoader(yaml.CSafeLoader):
    """The same in C, for files of thousands of entries; it says less about what is wrong."""

    yaml_implicit_resolvers = _PlainLoader.yaml_implicit_resolvers


def load_yaml(text: str) -> tuple[JsonValue, Lines]:
    """Parse one YAML document.

    Raises:
        YamlProblem: broken syntax, an alias, a repeated key, a custom tag, or nesting over :data:`MAX_DEPTH`.
    """
    lines: dict[Location, int] = {}
    try:
        data = _load(text, lines)
    except yaml.MarkedYAMLError as error:
        if (quote := _open_quote(text, error)) is not None:
            problem = "not YAML: the quote that is opened here is not closed on this line"
            raise YamlProblem(quote, "-", problem, "close it, or write the text as a block: |") from error
        mark = error.problem_mark or error.context_mark
        problem = " ".join(str(part) for part in (error.context, error.problem) if part)
        raise YamlProblem(mark.line + 1 if mark else 1, "-", f"not YAML: {problem}", "correct the syntax") from error
    except yaml.YAMLError as error:
        raise YamlProblem(1, "-", f"not YAML: {' '.join(str(error).split())}", "save it as plain UTF-8 text") from error
    except RecursionError:
        raise YamlProblem(1, "-", "nested too deeply", f"use at most {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise YamlProblem(1, "-", f"a value cannot be read: {error}", "put it in quotes") from error
    return data, Lines(lines)


def _open_quote(text: str, error: yaml.MarkedYAMLError) -> int | None:
    """The line of a quote that was left open, which the parser notices only at the next quote or at the end."""
    if error.context == "while scanning a quoted scalar" and error.context_mark is not None:
        return int(error.context_mark.line) + 1 if "end of stream" in str(error.problem) else None
    if error.problem_mark is None:
        return None
    last: int | None = None
    with contextlib.suppress(yaml.YAMLError):
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            start, end = token.start_mark, token.end_mark
            if end.index > error.problem_mark.index:
                break
            if isinstance(token, yaml.ScalarToken) and token.style in {"'", '"'}:
                runs_on = start.line < end.line == error.problem_mark.line
                last = start.line + 1 if runs_on else None
    return last


def _load(text: str, lines: dict[Location, int]) -> JsonValue:
    return _load_with((_FastLoader if _is_plain(text) else _PlainLoader)(text), lines)


def _is_plain(text: str) -> bool:
    """Whether the text is YAML of bounded depth: the loader in C recurses without looking at the stack."""
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_FastLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                return False
    except yaml.YAMLError:
        return False
    return True


def _load_with(loader: _PlainLoader | _FastLoader, lines: dict[Location, int]) -> JsonValue:
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _walk(node, (), lines, set())
        data: JsonValue = loader.construct_document(node)
        return data
    finally:
        loader.dispose()


def _walk(node: yaml.Node, location: Location, lines: dict[Location, int], seen: set[int]) -> None:
    line, field = node.start_mark.line + 1, dotted(location)
    if id(node) in seen:
        raise YamlProblem(line, field, "an alias (*name) is used", "write the value out")
    if len(location) > MAX_DEPTH:
        raise YamlProblem(line, field, "nested too deeply", f"use at most {MAX_DEPTH} levels")
    seen.add(id(node))
    lines.setdefault(location, line)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*location, index), lines, seen)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*location, str(key.value))
            if inner in lines:
                raise YamlProblem(key.start_mark.line + 1, dotted(inner), "the key is repeated", "keep one of them")
            lines[inner] = key.start_mark.line + 1
            _walk(value, inner, lines, seen)


def dotted(location: Location) -> str:
    """``voices.anna.language`` or ``fallback[0]``; "-" for the whole document."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".") or "-"
