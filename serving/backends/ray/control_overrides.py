"""A load's parameters (OIP's overrides of a model's config and files), checked and written out; used by ModelSet.

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

from serving.errors import BadInput, foreign_text
from serving.protocol.oip_json import parse_object
from serving.repository.derive import RAY_BACKEND, derived_card, tensor_engine, triton_backend
from serving.repository.model import TENSOR_TASK, Model

FILE_PREFIX: Final = "file:"
MAX_FILES: Final = 256
MAX_PATH_CHARS: Final = 256
MAX_PATH_PARTS: Final = 16
MAX_CONFIG_BYTES: Final = 1 << 20


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
            raise BadInput(f"unrecognized parameter '{key[:64]}' for loading model '{name}'", field=key[:64])
    if len(files) > MAX_FILES:
        raise BadInput(f"{len(files)} files, more than {MAX_FILES}", field=FILE_PREFIX)
    if files and config is None:
        raise BadInput(
            f"failed to load '{name}', override model directory requires the parameter 'config'", field="config"
        )
    return Overrides(config, files)


def newcomer(name: str, overrides: Overrides, *, triton: bool) -> Model | None:
    """A model that no repository has, made of files alone; None where it is not a Ray replica's.

    Args:
        name: of the model.
        overrides: with files, and so with a config.
        triton: whether the mesh has Triton, whose every model is that does not say ``backend: "ray"``.
    """
    config = overrides.config
    if config is None or (triton and triton_backend(config) != RAY_BACKEND):
        return None
    return Model(name, Path(), derived_card(RAY_BACKEND, RAY_BACKEND), config, ())


def overridden(model: Model, overrides: Overrides, folder: Path) -> Model:
    """The model as the overrides have it.

    Args:
        model: as its own folder has it.
        overrides: from :func:`read_overrides`.
        folder: where given files are written; what was there is removed.

    Raises:
        BadInput: the model has a typed task, or no engine runs the files.
    """
    if overrides.config is None and not overrides.files:
        return model
    if model.card.task != TENSOR_TASK:
        raise BadInput(f"model '{model.name}' is of task {model.card.task} and takes no overrides", field="config")
    home, versions = model.folder, model.versions
    if overrides.files:
        shutil.rmtree(folder, ignore_errors=True)
        for path, content in overrides.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        home, versions = (
            folder,
            tuple(sorted(int(top) for top in {path.parts[0] for path in overrides.files} if _is_version(top))),
        )
    config = overrides.config or model.config
    engine = tensor_engine(home, versions, config)
    if not engine or not versions:
        raise BadInput(
            f"failed to load '{model.name}', no version folder holds a file that an engine runs", field="config"
        )
    return Model(model.name, home, model.card.model_copy(update={"engine": engine}), config, versions)


def _config(name: str, value: JsonValue) -> ModelConfig:
    if not isinstance(value, str):
        raise BadInput("must be a string of JSON", field="config")
    if len(value) > MAX_CONFIG_BYTES:
        raise BadInput(f"has {len(value)} characters, more than {MAX_CONFIG_BYTES}", field="config")
    document = parse_object(value.encode("utf-8", "surrogatepass"), "config")
    try:
        config = ParseDict(document, ModelConfig())
    except (ParseError, RecursionError) as error:
        raise BadInput(f"failed to load '{name}', {foreign_text(error)}", field="config") from error
    if config.name not in ("", name):
        raise BadInput(f"failed to load '{name}', the configuration is of '{config.name[:64]}'", field="config")
    config.name = name
    return config


def _path(key: str) -> PurePosixPath:
    """The relative path of a ``file:`` parameter; nothing that leads out of a folder passes."""
    text = key.removeprefix(FILE_PREFIX)
    path = PurePosixPath(text)
    safe = re.fullmatch(r"[\w.@+=, -]+(/[\w.@+=, -]+)*", text) is not None
    if not safe or ".." in path.parts or path.is_absolute() or len(path.parts) < 2 or text != str(path):  # noqa: PLR2004
        raise BadInput("must be a path of the form VERSION/FILE inside the model's folder", field=key[:MAX_PATH_CHARS])
    if len(text) > MAX_PATH_CHARS or len(path.parts) > MAX_PATH_PARTS:
        raise BadInput(f"is longer than {MAX_PATH_CHARS} characters or {MAX_PATH_PARTS} parts", field=key[:64])
    return path


def _content(key: str, value: JsonValue) -> bytes:
    if not isinstance(value, str):
        raise BadInput("must be base64 text", field=key[:64])
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput(f"is not base64: {foreign_text(error)}", field=key[:64]) from error


def _is_version(name: str) -> bool:
    return re.fullmatch(r"[1-9]\d{0,9}", name) is not None
