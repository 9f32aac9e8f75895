"""Reads a job's YAML, finds the files it names through the job type's JSON schema and checks them; used by submit.

The one invariant: nothing is sent before the whole file and every file it names were checked, and every complaint names
the line of the YAML.
"""

import codecs
import mimetypes
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import JsonValue

from serving.errors import BadInput, NotFound, ReelmeshError, TooLarge, foreign_text
from serving.protocol.artifact import ArtifactRef
from serving.repository.yaml_lines import Lines, Location, YamlProblem, dotted, load_yaml

MAX_SPEC_BYTES: Final = 1 << 20
ARTIFACT: Final = "artifact"
_HEAD_BYTES: Final = 64
_NEXT_PROBLEM: Final = re.compile(r"; (?=input(?:[.\[][^ ]*)?: |and \d+ more$)")
"""How serving.jobs.input_problems separates what it found."""
_PART: Final = re.compile(r"\[(\d+)\]|([^.\[\]]+)")

Schema = Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Spec:
    """A job's input as a person wrote it.

    Args:
        path: of the YAML file; files it names are relative to its folder.
        value: what it says.
        lines: where it says it.
    """

    path: Path
    value: dict[str, JsonValue]
    lines: Lines

    def place(self, location: Location) -> str:
        """``podcast.yaml:6: speakers[0].portrait``."""
        field = f": {dotted(location)}" if location else ""
        return f"{self.path}:{self.lines.of(location)}{field}"

    def located(self, error: ReelmeshError) -> ReelmeshError:
        """The mesh's complaint about a field, with the line of the YAML that holds it; further complaints are notes."""
        if error.field is None or not error.field.startswith("input"):
            return error
        text = ": ".join(part for part in (error.problem, error.fix) if part)
        first, *others = _NEXT_PROBLEM.split(text)
        told = type(error)(first, field=self.place(location_of(error.field)[1:]))
        for other in others:
            field, colon, problem = other.partition(": ")
            told.add_note(f"{self.place(location_of(field)[1:])}: {problem}" if colon else other)
        return told


class NamedFile(NamedTuple):
    """A local file that the YAML names."""

    location: Location
    path: Path


def location_of(field: str) -> Location:
    """``input.speakers[0].portrait`` as a path of keys and indexes."""
    return tuple(int(index) if index else name for index, name in _PART.findall(field))


def read_spec(path: Path) -> Spec:
    """Read a job's YAML.

    Raises:
        BadInput: it is missing, too long, no YAML, or no mapping; with the line where there is one.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_SPEC_BYTES + 1)
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", field=str(path), fix="name a YAML file") from error
    if len(raw) > MAX_SPEC_BYTES:
        raise TooLarge(f"has more than {MAX_SPEC_BYTES:,} bytes", field=str(path), fix="split the job")
    try:
        value, lines = load_yaml(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadInput("is not UTF-8 text", field=str(path), fix="save it as UTF-8") from error
    except YamlProblem as problem:
        field = "" if problem.field == "-" else f": {problem.field}"
        raise BadInput(problem.problem, field=f"{path}:{problem.line}{field}", fix=problem.fix) from problem
    if not isinstance(value, dict):
        raise BadInput("must be a mapping of fields", field=str(path), fix="write lines like `title: My film`")
    return Spec(path, value, lines)


def named_files(schema: Schema, spec: Spec) -> list[NamedFile]:
    """The files a spec names, in the order of the file, each checked.

    Raises:
        BadInput: naming the line of the first that is missing, empty, unreadable or not what its name says.
    """
    found = []
    for location, text in file_fields(schema, spec.value):
        try:
            path = (spec.path.parent / Path(text).expanduser()).resolve()
            check_file(path)
        except BadInput as error:
            raise BadInput(f"{text}: {error.problem}", field=spec.place(location), fix=error.fix) from error
        except (OSError, RuntimeError, ValueError) as error:
            raise BadInput(
                f"{foreign_text(text)}: cannot be looked at: {foreign_text(error)}",
                field=spec.place(location),
                fix="name a file that you may read",
            ) from error
        found.append(NamedFile(location, path))
    return found


def file_fields(schema: Schema, value: JsonValue) -> list[tuple[Location, str]]:
    """Every place in ``value`` where the schema wants an artifact and the value is text: the name of a local file."""
    found = dict(_walk(schema, dict(schema), value, (), frozenset()))
    return sorted(found.items(), key=lambda item: [str(part) for part in item[0]])


def _walk(
    root: Schema, schema: JsonValue, value: JsonValue, at: Location, seen: frozenset[int]
) -> Iterator[tuple[Location, str]]:
    # ``seen`` holds the schemas met at this very place: a schema that refers to itself must consume some of the value.
    if not isinstance(schema, Mapping) or id(schema) in seen:
        return
    seen |= {id(schema)}
    if schema.get("format") == ARTIFACT and isinstance(value, str):
        yield at, value
        return
    for inner in _alternatives(root, schema):
        yield from _walk(root, inner, value, at, seen)
    if isinstance(value, dict):
        properties = schema.get("properties")
        known = properties if isinstance(properties, Mapping) else {}
        for name, item in value.items():
            inner = known.get(name, schema.get("additionalProperties"))
            yield from _walk(root, inner, item, (*at, name), frozenset())
    elif isinstance(value, list):
        prefix = schema.get("prefixItems")
        fixed = prefix if isinstance(prefix, list) else []
        for index, item in enumerate(value):
            inner = fixed[index] if index < len(fixed) else schema.get("items")
            yield from _walk(root, inner, item, (*at, index), frozenset())


def _alternatives(root: Schema, schema: Schema) -> Iterator[JsonValue]:
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        yield _resolve(root, reference)
    for word in ("anyOf", "oneOf", "allOf"):
        branches = schema.get(word)
        if isinstance(branches, list):
            yield from branches


def _resolve(root: Schema, reference: str) -> JsonValue:
    target: JsonValue = dict(root)
    for part in reference.removeprefix("#/").split("/"):
        target = target.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
    return target


def check_file(path: Path) -> None:
    """Refuse what cannot be a job's file.

    Raises:
        BadInput: missing, no file, empty, unreadable, or its first bytes are not what its name says.
    """
    if not path.exists():
        raise BadInput("there is no such file", fix=f"looked for {path}")
    if not path.is_file():
        raise BadInput("is not a file", fix="name a file")
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", fix="check its permissions") from error
    told, seen = mimetypes.guess_type(path.name)[0] or "", sniff(head)
    wanted = _ACCEPTED.get(told.partition("/")[0], "check the file")
    if not head:
        raise BadInput("is empty", fix=wanted)
    if told in _SNIFFED and seen != told:
        raise BadInput(f"is no {told}: it looks like {seen or _looks(head)}", fix=wanted)


_ACCEPTED: Final = {
    "image": "give a picture as PNG, JPEG or WebP",
    "audio": "give a recording that ffmpeg plays, such as WAV, FLAC or MP3",
    "video": "give a film that ffmpeg plays, such as MP4 or WebM",
}
"""What the mesh takes, by the kind that a file's name promises."""
_OTHERS: Final[tuple[tuple[bytes, int, str], ...]] = (
    (b"%PDF", 0, "a PDF document"),
    (b"PK\x03\x04", 0, "a ZIP archive"),
    (b"\x1f\x8b", 0, "a gzip archive"),
    (b"ID3", 0, "an MP3 recording"),
    (b"OggS", 0, "an Ogg recording"),
    (b"BM", 0, "a BMP picture"),
    (b"II*\0", 0, "a TIFF picture"),
    (b"MM\0*", 0, "a TIFF picture"),
    (b"ftyphei", 4, "a HEIC picture"),
    (b"ftypavif", 4, "an AVIF picture"),
    (b"ftyp", 4, "an MP4 film or recording"),
    (b"<svg", 0, "an SVG drawing"),
)
"""First bytes, where they stand and what they tell: kinds that people mix up with those the mesh takes."""


def _looks(head: bytes) -> str:
    """A file of no accepted kind, in words."""
    for start, offset, words in _OTHERS:
        if head[offset:].startswith(start):
            return words
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return "data of an unknown kind"
    return "text" if all(letter.isprintable() or letter.isspace() for letter in text) else "data of an unknown kind"


_SIGNATURES: Final[tuple[tuple[str, bytes, int, bytes], ...]] = (
    ("image/png", b"\x89PNG\r\n\x1a\n", 0, b""),
    ("image/jpeg", b"\xff\xd8\xff", 0, b""),
    ("image/gif", b"GIF8", 0, b""),
    ("image/webp", b"RIFF", 8, b"WEBP"),
    ("audio/x-wav", b"RIFF", 8, b"WAVE"),
    ("audio/flac", b"fLaC", 0, b""),
    ("video/webm", b"\x1a\x45\xdf\xa3", 0, b""),
)
"""Media type (as mimetypes names it), first bytes, and what must follow at an offset."""
_SNIFFED: Final = frozenset({signature[0] for signature in _SIGNATURES})


def sniff(head: bytes) -> str | None:
    """The media type that a file's first bytes tell, for types whose signature is certain."""
    for media_type, start, offset, follows in _SIGNATURES:
        if head.startswith(start) and head[offset:].startswith(follows):
            return media_type
    return None


def with_refs(value: dict[str, JsonValue], refs: Mapping[Location, ArtifactRef]) -> dict[str, JsonValue]:
    """A copy of the input with references where it named files."""
    return {name: _replaced(item, (name,), refs) for name, item in value.items()}


def _replaced(value: JsonValue, at: Location, refs: Mapping[Location, ArtifactRef]) -> JsonValue:
    if at in refs:
        return refs[at].model_dump(mode="json")
    if isinstance(value, dict):
        return {name: _replaced(item, (*at, name), refs) for name, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, (*at, index), refs) for index, item in enumerate(value)]
    return value


def unknown_type(name: str, known: Mapping[str, object]) -> NotFound:
    """There is no such job type."""
    return NotFound(f"there is no job type {name!r}", field="TYPE", fix=f"one of {', '.join(sorted(known))}")
