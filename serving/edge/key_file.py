"""The key file: bearer keys by their hashes, read and written; used by the edge, which watches it, and `reelmesh keys`.

A key is 256 random bits, so nobody finds it by guessing and a fast hash (SHA-256) keeps it as well as a slow one would,
which is made for passwords; and a request costs the edge one hash instead of a tenth of a second.

The one invariant: no key is in the file, and no message repeats a value of it that might be one.
"""

import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from serving.errors import BadInput
from serving.protocol.keys import CALLS, EVERY_MODEL, Grant
from serving.protocol.licences import COMMERCIAL, USES
from serving.repository.findings import Finding
from serving.repository.yaml_lines import Lines, YamlProblem, load_yaml

MAX_FILE_BYTES: Final = 4 << 20
MAX_KEYS: Final = 10_000
MAX_RATE: Final = 1_000_000
MAX_MODELS_TEXT: Final = 512
"""Characters of a key's models together: they travel in a header."""
FIELDS: Final = ("name", "sha256", "models", "calls", "rate", "use")

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_MODEL: Final = re.compile(r"[A-Za-z0-9._-]{0,127}\*|[A-Za-z0-9._-]{1,128}")
_FIELD: Final = re.compile(r"[a-z_]{1,20}")
_FIX_HASH: Final = "make one with `reelmesh keys new NAME`"


@dataclass(frozen=True, slots=True)
class Key:
    """One entry.

    Args:
        sha256: of the key, 64 lower-case hex digits.
        grant: its name and what it allows.
        rate: requests per second; None for as many as come.
    """

    sha256: str
    grant: Grant
    rate: int | None = None

    def text(self) -> str:
        """As the file has it, without what is the default. Names are quoted, since one may look like a number."""
        lines = [f"- name: {json.dumps(self.grant.name)}", f"  sha256: {self.sha256}"]
        if self.grant.models != (EVERY_MODEL,):
            lines.append(f"  models: {json.dumps([*self.grant.models])}")
        lines.append(f"  calls: {self.grant.calls}")
        if self.rate is not None:
            lines.append(f"  rate: {self.rate}")
        if self.grant.use != COMMERCIAL:
            lines.append(f"  use: {self.grant.use}")
        return "\n".join(lines) + "\n"


def read_keys(file: Path) -> tuple[Key, ...]:
    """The keys of a file.

    Raises:
        BadInput: it cannot be read, or something in it is wrong; names file, line, field and the fix.
    """
    return parse_keys(read_text(file), file)


def read_text(file: Path) -> str:
    """The file's text; raises :class:`BadInput` as :func:`read_keys` does."""
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        fix = "make it with `reelmesh keys new NAME --file FILE`, or correct --keys or REELMESH_EDGE__KEYS_FILE"
        raise BadInput(f"cannot be read: {error.strerror}", field=str(file), fix=fix) from error
    if len(data) > MAX_FILE_BYTES:
        raise BadInput(f"larger than {MAX_FILE_BYTES >> 20} MiB", field=str(file), fix="remove keys nobody uses")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"not UTF-8 at byte {error.start}", field=str(file), fix="save it as UTF-8") from None


def parse_keys(text: str, file: Path) -> tuple[Key, ...]:
    """The keys in a text; ``file`` is named in the :class:`BadInput` that tells of the first thing wrong."""
    keys, findings = check_keys(text, file)
    if findings:
        first = findings[0]
        more = f" ({len(findings) - 1} more)" if len(findings) > 1 else ""
        raise BadInput(first.problem, field=first.where().removesuffix(":-"), fix=first.fix + more)
    return tuple(keys)


def check_keys(text: str, file: Path) -> tuple[list[Key], list[Finding]]:
    """The entries that are right, and everything wrong with the others."""
    try:
        data, lines = load_yaml(text)
    except YamlProblem as problem:
        # What cannot be read is not repeated, since it may be a key.
        said = problem.problem.partition(":")[0] if "cannot be read" in problem.problem else problem.problem
        return [], [Finding(file, problem.line, "-", said, problem.fix)]
    if data is None:
        return [], []
    if not isinstance(data, list):
        return [], [Finding(file, 1, "-", "is no list", "begin each key with '- name: ...'")]
    if len(data) > MAX_KEYS:
        return [], [Finding(file, 0, "-", f"more than {MAX_KEYS} keys", "remove keys nobody uses")]
    keys: list[Key] = []
    findings: list[Finding] = []
    for index, entry in enumerate(data):
        wrong = list(_wrong(index, entry, file, lines))
        findings += wrong
        if not wrong and isinstance(entry, dict):
            keys.append(_key(entry))
    findings += _repeated(data, file, lines)
    return keys, sorted(findings, key=lambda found: found.line)


def _wrong(index: int, entry: JsonValue, file: Path, lines: Lines) -> Iterator[Finding]:
    def finding(field: str, problem: str, fix: str) -> Finding:
        return Finding(file, lines.of((index, field)), f"[{index}].{field}".removesuffix("."), problem, fix)

    if not isinstance(entry, dict):
        yield finding("", "is no key", f"write {', '.join(FIELDS)} below one another")
        return
    for field in entry:
        if field not in FIELDS:
            shown = field if _FIELD.fullmatch(str(field)) else ""  # YAML has keys that are no text
            yield finding(shown, "no such field", f"use {', '.join(FIELDS)}")
    if not _is(entry.get("name"), _NAME):
        yield finding("name", "is missing or no name", "use letters, digits, '.', '_' and '-', at most 64")
    if not _is(entry.get("sha256"), _HASH):
        yield finding("sha256", "is not 64 lower-case hex digits", _FIX_HASH)
    models = entry.get("models", [EVERY_MODEL])
    if not isinstance(models, list) or not models or not all(_is(model, _MODEL) for model in models):
        yield finding("models", "is no list of models", "write names, or beginnings that end in '*': [whisper, flux-*]")
    elif len(",".join(map(str, models))) > MAX_MODELS_TEXT:
        yield finding("models", f"is over {MAX_MODELS_TEXT} characters together", "use beginnings: flux-*")
    if entry.get("calls", "infer") not in CALLS:
        yield finding("calls", "is not allowed", f"use one of {', '.join(CALLS)}")
    if entry.get("use", COMMERCIAL) not in USES:
        yield finding("use", "is not allowed", f"use one of {', '.join(USES)}")
    rate = entry.get("rate", 1)
    if not isinstance(rate, int) or isinstance(rate, bool) or not 1 <= rate <= MAX_RATE:
        yield finding("rate", "is no number of requests per second", f"use a whole number from 1 to {MAX_RATE}")


def _is(value: JsonValue, pattern: re.Pattern[str]) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _key(entry: dict[str, JsonValue]) -> Key:
    """A key from an entry in which nothing is wrong."""
    models, rate = entry.get("models", [EVERY_MODEL]), entry.get("rate")
    calls = next(known for known in CALLS if known == entry.get("calls", "infer"))
    patterns = tuple(map(str, models)) if isinstance(models, list) else ()
    use = next(known for known in USES if known == entry.get("use", COMMERCIAL))
    grant = Grant(str(entry["name"]), calls, (EVERY_MODEL,) if EVERY_MODEL in patterns else patterns, use)
    return Key(str(entry["sha256"]), grant, rate if isinstance(rate, int) else None)


def _repeated(data: Sequence[JsonValue], file: Path, lines: Lines) -> Iterator[Finding]:
    for field, fix in (("name", "give each key a name of its own"), ("sha256", "keep one of them")):
        seen: dict[str, int] = {}
        for index, entry in enumerate(data):
            value = entry.get(field) if isinstance(entry, dict) else None
            if isinstance(value, str) and value in seen:
                line = lines.of((index, field))
                problem = f"is also that of line {lines.of((seen[value], field))}"
                yield Finding(file, line, f"[{index}].{field}", problem, fix)
            elif isinstance(value, str):
                seen[value] = index


def add_key(file: Path, key: Key) -> None:
    """Append a key; a file that is not there is made, readable by its owner alone.

    Raises:
        BadInput: the file is wrong, or has a key of that name.
    """
    with _alone(file):
        text = read_text(file) if file.exists() else ""
        keys = parse_keys(text, file)
        if any(known.grant.name == key.grant.name for known in keys):
            fix = f"choose another, or `reelmesh keys remove {key.grant.name}` first"
            raise BadInput(f"{str(file)!r} has a key named {key.grant.name!r} already", field="NAME", fix=fix)
        longer = f"{text.rstrip()}\n{key.text()}".lstrip("\n")
        _replace(file, _as_wanted(longer, (*keys, key), file))


def remove_key(file: Path, name: str) -> None:
    """Take a key out, with its lines; raises :class:`BadInput` where there is none of that name."""
    with _alone(file):
        text = read_text(file)
        keys = parse_keys(text, file)
        index = next((at for at, key in enumerate(keys) if key.grant.name == name), None)
        if index is None:
            fix = f"use one of {', '.join(key.grant.name for key in keys[:20])}" if keys else "there are none"
            raise BadInput(f"{str(file)!r} has no key of that name", field="NAME", fix=fix)
        starts = load_yaml(text)[1]
        written = text.splitlines(keepends=True)
        last = starts.of((index + 1,)) - 1 if index + 1 < len(keys) else len(written)
        while written[last - 1].lstrip().startswith("#"):
            last -= 1  # a comment before the next key is about that one
        rest = "".join(written[: starts.of((index,)) - 1] + written[last:])
        _replace(file, _as_wanted(rest, keys[:index] + keys[index + 1 :], file))


def _as_wanted(text: str, keys: Sequence[Key], file: Path) -> str:
    """The text, or, where it does not say what it should since somebody formats otherwise, the keys written anew."""
    found, findings = check_keys(text, file)
    if findings or found != list(keys):
        return "".join(key.text() for key in keys)
    return text


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Nobody else of this module changes a file of the folder meanwhile."""
    try:
        folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise BadInput(f"there is no folder {str(file.parent)!r}", field="--file", fix="make it first") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _replace(file: Path, text: str) -> None:
    """Write the whole file or nothing; the edge never reads half of one."""
    target = file.resolve()
    try:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=target.parent, delete=False) as stream:
            try:
                stream.write(text)
                if target.exists():  # its owner may have let a group read it, of which the mesh is one
                    os.fchmod(stream.fileno(), target.stat().st_mode & 0o777)
                stream.flush()
                os.fsync(stream.fileno())
                Path(stream.name).replace(target)
            except OSError:
                Path(stream.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise BadInput(f"cannot be written: {error.strerror}", field=str(file), fix="choose another --file") from error
