"""What DVC's own files say: ``.dvc`` files, ``dvc.lock``, ``.dvc/config`` and ``.dir`` objects; read by DvcRemote.

The one invariant: reading is pure: text in, values or :class:`BadInput` out. (Formats: https://dvc.org/doc/user-guide,
"Project structure" and "Internal files"; checked against DVC 3.67.)
"""

import configparser
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from serving.errors import BadInput, shown

MAX_FILE_BYTES: Final = 64 << 20
_MD5: Final = re.compile(r"[0-9a-f]{32}(\.dir)?")
_REMOTE: Final = re.compile(r"remote \"(.+)\"")


@dataclass(frozen=True, slots=True)
class Out:
    """One output: its path beside the file that names it, its MD5 (of a folder: of its listing, ending in ``.dir``).

    ``size_bytes`` is None in files of old versions.
    """

    path: str
    md5: str
    size_bytes: int | None = None
    remote: str | None = None


def outs_of(text: str, file: str) -> list[Out]:
    """The outputs that a ``.dvc`` file, or all stages of a ``dvc.lock``, name with an MD5.

    Raises:
        BadInput: not such a file; names it.
    """
    told = _yaml(text, file)
    stages = told.get("stages")
    lists = [told] if "outs" in told or not isinstance(stages, dict) else list(stages.values())
    found = []
    for stage in lists:
        outs = stage.get("outs", []) if isinstance(stage, dict) else None
        if not isinstance(outs, list):
            raise _bad(file, "has no list of outs")
        found += [_out(out, file) for out in outs if not isinstance(out, dict) or "md5" in out]
    return found


def listing_of(data: bytes, file: str) -> list[tuple[str, str]]:
    """Names and MD5s in a ``.dir`` object; raises :class:`BadInput`."""
    try:
        told = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _bad(file, "is no JSON") from error
    found = []
    for entry in told if isinstance(told, list) else [None]:
        match entry:
            case {"relpath": str(name), "md5": str(md5)} if _MD5.fullmatch(md5) and not md5.endswith(".dir"):
                found.append((name, md5))
            case _:
                raise _bad(file, f"lists {shown(entry)}")
    return found


def remote_of(texts: list[tuple[str, str]], wanted: str | None) -> tuple[str, dict[str, str]]:
    """Name and options of the remote: the one an output names, else the default, else the only one.

    Args:
        texts: contents and names of ``.dvc/config`` and ``.dvc/config.local``, the later ones win.
        wanted: the name that an output gives.

    Raises:
        BadInput: no such remote, or the file is none.
    """
    options: dict[str, dict[str, str]] = {}
    default = None
    for text, file in texts:
        for section, values in _sections(text, file).items():
            name = _REMOTE.fullmatch(section.strip("'"))
            if name:
                options.setdefault(name[1], {}).update(values)
            elif section == "core":
                default = values.get("remote", default)
    name_of = wanted or default or (next(iter(options)) if len(options) == 1 else None)
    if name_of is None or not options.get(name_of, {}).get("url"):
        problem = f"names no address for remote {name_of!r}" if name_of else "names no remote"
        raise BadInput(problem, field=texts[0][1] if texts else ".dvc/config", fix="run `dvc remote add -d NAME URL`")
    return name_of, options[name_of]


def _sections(text: str, file: str) -> Mapping[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None, strict=False, default_section="")
    try:
        parser.read_string("\n".join(line.strip() for line in text.splitlines()))
        return {name: dict(parser.items(name)) for name in parser.sections()}
    except (configparser.Error, ValueError) as error:
        raise _bad(file, "is no configuration of DVC") from error


def _out(out: object, file: str) -> Out:
    match out:
        case {"path": str(path), "md5": str(md5), **more} if _MD5.fullmatch(md5) and path:
            size, remote = more.get("size"), more.get("remote")
            known = size if type(size) is int and size >= 0 and not md5.endswith(".dir") else None
            return Out(path, md5, known, remote if isinstance(remote, str) else None)
    raise _bad(file, f"names {shown(out)}, which has no path and MD5")


def _yaml(text: str, file: str) -> dict[str, Any]:
    try:
        told = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _bad(file, "is no YAML") from error
    if not isinstance(told, dict):
        raise _bad(file, "is no file of DVC")
    return told


def _bad(file: str, problem: str) -> BadInput:
    return BadInput(problem, field=file, fix="make it again with `dvc add`, `dvc repro` or `dvc push`")
