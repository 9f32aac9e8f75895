"""What a person changes about a job, as the edits that the mesh takes; used by `reelmesh jobs edit`.

The one invariant: edits hold only what differs, as JSON merge patches: members that are not named stay as they are.
"""

import copy
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import yaml
from pydantic import JsonValue

from serving.cli.spec import location_of, read_spec
from serving.errors import BadInput, shown
from serving.repository.yaml_lines import Location, YamlProblem, dotted, load_yaml

PARTS: Final = ("input", "results")
_MIN_PARTS: Final = {"input": 2, "results": 3}
_INDEX: Final = re.compile(r"\d{1,9}")
_SHELL: Final = 'eval "${VISUAL:-${EDITOR:-vi}} \\"\\$1\\""'
_ASSIGNMENT: Final = (
    "write --set input.title='A new title', or --set results.STAGE.PART.field=value with the part's number from 0"
)

Edits = dict[str, JsonValue]


def stages_of_sets(sets: Sequence[str]) -> list[str]:
    """The stages whose results the assignments change; errors as :func:`edits_of_sets`."""
    ways = [_assignment(text)[0] for text in sets]
    return list(dict.fromkeys(str(way[1]) for way in ways if way[0] == "results"))


def edits_of_sets(sets: Sequence[str], known: Mapping[str, JsonValue]) -> Edits:
    """Edits from ``path=value`` assignments; values are YAML, and null removes.

    An item of a list is named by its index, ``input.script[2].text=...``. Since a merge patch replaces lists whole, the
    list is sent with the one item changed.

    Args:
        sets: the assignments.
        known: the job's ``input``, and ``results`` by stage and number of the part.

    Raises:
        BadInput: an assignment that names no place, or a place that cannot be.
    """
    new: JsonValue = copy.deepcopy(dict(known))
    removed: JsonValue = {}
    for text in sets:
        way, value = _assignment(text)
        if value is None:
            removed = _with(removed, way, None, text)
        else:
            new = _with(new, way, value, text)
    patch = _merged(difference(dict(known), new), removed)
    return patch if isinstance(patch, dict) else {}


def _assignment(text: str) -> tuple[Location, JsonValue]:
    name, equals, value = text.partition("=")
    way = location_of(name)
    if not equals or not way or way[0] not in PARTS or len(way) < _MIN_PARTS[str(way[0])]:
        raise BadInput(f"{shown(text)} sets nothing", field="--set", fix=_ASSIGNMENT)
    if way[0] == "results":
        # Parts are counted; a patch names them by text, as JSON's members are.
        way = (way[0], way[1], str(way[2]), *way[3:])
    return way, _yaml(value, f"--set {name[:60]}")


def _yaml(text: str, field: str) -> JsonValue:
    try:
        value, _ = load_yaml(text)
    except YamlProblem as problem:
        raise BadInput(problem.problem, field=field, fix="put the value into quotes") from problem
    found: JsonValue = value
    return found


def _with(value: JsonValue, way: Location, new: JsonValue, text: str) -> JsonValue:
    """A copy of a value with one place set."""
    if not way:
        return new
    key, rest = way[0], way[1:]
    if isinstance(value, list):
        if not isinstance(key, int) or key >= len(value):
            raise BadInput(
                f"{shown(text)}: the list has {len(value)} items", field="--set", fix="name one by its index"
            )
        return [*value[:key], _with(value[key], rest, new, text), *value[key + 1 :]]
    if isinstance(key, int):
        raise BadInput(f"{shown(text)}: there is no list to index", field="--set", fix="set the list as a whole")
    held = value if isinstance(value, dict) else {}
    return {**held, key: _with(held.get(key), rest, new, text)}


def difference(old: JsonValue, new: JsonValue) -> JsonValue:
    """The merge patch that makes ``new`` of ``old``; {} where nothing differs."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    gone: dict[str, JsonValue] = {key: None for key, value in old.items() if key not in new and value is not None}
    changed = {key: difference(old.get(key), value) for key, value in new.items() if old.get(key) != value}
    return gone | changed


def _merged(patch: JsonValue, other: JsonValue) -> JsonValue:
    if not isinstance(patch, dict) or not isinstance(other, dict):
        return other
    return {**patch, **{key: _merged(patch.get(key), value) for key, value in other.items()}}


def edits_of_file(path: Path) -> Edits:
    """Edits that a YAML or JSON file holds: ``input`` and ``results``, each a merge patch.

    Raises:
        BadInput: it cannot be read, or holds something else.
    """
    spec = read_spec(path)
    for name, value in spec.value.items():
        if name not in PARTS or not isinstance(value, dict):
            raise BadInput(
                f"{dotted((name,))} is no edit", field=f"{path}:{spec.lines.of((name,))}", fix="write input or results"
            )
    return spec.value


def patch_by_editor(value: Mapping[str, JsonValue], title: str) -> Edits:
    """The merge patch that a person makes of a value in ``$VISUAL`` or ``$EDITOR``; {} where nothing was changed.

    Raises:
        BadInput: the editor failed, or what it left cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="reelmesh-") as folder:
        path = Path(folder) / "edit.yaml"
        text = yaml.safe_dump(dict(value), allow_unicode=True, sort_keys=False, width=100)
        path.write_text(f"# {title}: change it, save and leave. Unchanged, nothing is made.\n{text}", "utf-8")
        # The shell reads the variable as a command with its arguments and quotes, as git does.
        done = subprocess.run(["/bin/sh", "-c", _SHELL, "sh", str(path)], check=False)
        if done.returncode:
            raise BadInput(f"the editor ended with {done.returncode}", field="EDITOR", fix="set it, or use --set")
        patch = difference(dict(value), read_spec(path).value)
    return patch if isinstance(patch, dict) else {}
