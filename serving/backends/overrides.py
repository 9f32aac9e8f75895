"""A load's parameters (OIP's overrides of a model's config and files), checked and written out; used by all replicas.

The one invariant: what a client sends becomes files only inside the folder it is given, after all of it was checked.
"""

import base64
import binascii
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from google.protobuf.json_format import ParseDict, ParseError
from pydantic import JsonValue
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.errors import BadInput, foreign_text, shown
from serving.protocol.oip_json import parse_object
from serving.repository.derive import is_version

FOLDER: Final = "overrides"
"""Folder in a replica's own with the files that came with loads, by model."""
FILE_PREFIX: Final = "file:"
MAX_FILES: Final = 256
MAX_PATH_CHARS: Final = 256
MAX_PATH_PARTS: Final = 16
MAX_CONFIG_BYTES: Final = 1 << 20
_CONFIG: Final = "parameters.config"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PATH: Final = re.compile(r"[\w.@+=, -]+(/[\w.@+=, -]+)*")


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a load changes.

    Args:
        config: in place of config.pbtxt; None leaves that.
        files: contents by relative path, in place of every file of the model's folder; empty leaves those.
    """

    config: ModelConfig | None
    files: Mapping[PurePosixPath, bytes]


def read_overrides(name: str, parameters: Mapping[str, JsonValue]) -> Overrides:
    """Check a load's parameters.

    Raises:
        BadInput: names the parameter.
    """
    config, files = None, {}
    for key, value in parameters.items():
        if key == "config":
            config = _config(name, value)
        elif key.startswith(FILE_PREFIX):
            files[_path(key)] = _content(key, value)
        else:
            raise BadInput(f"unrecognized parameter '{key[:64]}' for loading model '{name}'", field=_field(key))
    if len(files) > MAX_FILES:
        raise BadInput(f"{len(files)} files, more than {MAX_FILES}", field=_field(FILE_PREFIX))
    if files and config is None:
        raise BadInput(
            f"failed to load '{name}', override model directory requires the parameter 'config'", field=_CONFIG
        )
    return Overrides(config, files)


def check_new_name(name: str) -> None:
    """Refuse a name for a model that no repository has; raises :class:`BadInput`."""
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"{shown(name)} cannot stand in an address",
            field="model name",
            fix="use up to 128 letters, digits, '.', '_' and '-'",
        )


def write_files(folder: Path, files: Mapping[PurePosixPath, bytes]) -> tuple[int, ...]:
    """Write a model's files; the versions among them, ascending.

    Raises:
        BadInput: two of them stand in each other's way, or there is no room.
    """
    for path, content in files.items():
        try:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        except OSError as error:
            raise BadInput(f"cannot be written: {error.strerror}", field=_field(f"{FILE_PREFIX}{path}")) from error
    return versions_in(folder)


def versions_in(folder: Path) -> tuple[int, ...]:
    """The version folders of a model's folder, ascending."""
    return tuple(sorted(int(path.name) for path in folder.iterdir() if is_version(path.name)))


def keep_only(kept: Path | None, parent: Path) -> None:
    """Remove the folders in ``parent`` but one."""
    for folder in parent.iterdir() if parent.is_dir() else ():
        if folder != kept:
            shutil.rmtree(folder, ignore_errors=True)


def _config(name: str, value: JsonValue) -> ModelConfig:
    if not isinstance(value, str):
        raise BadInput("must be a string of JSON", field=_CONFIG)
    if len(value) > MAX_CONFIG_BYTES:
        raise BadInput(f"has {len(value)} characters, more than {MAX_CONFIG_BYTES}", field=_CONFIG)
    document = parse_object(value.encode("utf-8", "surrogatepass"), _CONFIG)
    try:
        config = ParseDict(document, ModelConfig())
    except (ParseError, ValueError, TypeError, RecursionError) as error:
        raise BadInput(f"failed to load '{name}', {foreign_text(error)}", field=_CONFIG) from error
    if config.name not in ("", name):
        raise BadInput(f"failed to load '{name}', the configuration is of '{config.name[:64]}'", field=_CONFIG)
    config.name = name
    return config


def _path(key: str) -> PurePosixPath:
    """The relative path of a ``file:`` parameter; nothing that leads out of a folder passes."""
    text = key.removeprefix(FILE_PREFIX)
    if len(text) > MAX_PATH_CHARS or text.count("/") >= MAX_PATH_PARTS:
        raise BadInput(f"is longer than {MAX_PATH_CHARS} characters or {MAX_PATH_PARTS} parts", field=_field(key))
    path = PurePosixPath(text)
    if not _PATH.fullmatch(text) or ".." in path.parts or text != str(path) or text == ".":
        raise BadInput("must be a path of the form VERSION/FILE inside the model's folder", field=_field(key))
    return path


def _content(key: str, value: JsonValue) -> bytes:
    if not isinstance(value, str):
        raise BadInput("must be base64 text", field=_field(key))
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput(f"is not base64: {foreign_text(error)}", field=_field(key)) from error


def _field(key: str) -> str:
    return f"parameters.{key[:64]}"
