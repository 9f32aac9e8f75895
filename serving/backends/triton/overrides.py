"""Models as a load asks for them: read afresh from the repository, or made of the call's overrides; used by control.py.

The one invariant: files of a call are written below a folder of the call's own, whatever their paths say.
"""

import base64
import binascii
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from google.protobuf.json_format import ParseDict, ParseError
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.backends.control import Json
from serving.errors import BadInput, NotFound, foreign_text, shown
from serving.protocol.oip_json import parse_object
from serving.repository.derive import RAY_BACKEND, derived_card, file_backend, triton_backend
from serving.repository.model import TRITON_GROUP, Model
from serving.repository.served import load_one, steps
from serving.settings import Settings

CONFIG: Final = "config"
FILE: Final = "file:"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION: Final = re.compile(r"[1-9]\d{0,9}")


def model_to_load(settings: Settings, name: str, parameters: Json, make_folder: Callable[[], Path]) -> Model:
    """The model that a load names, as its folder and its overrides are now.

    Args:
        settings: name the repositories.
        name: of the model.
        parameters: OIP's: ``config`` (JSON as a string) and ``file:<path>`` (base64), which need a config.
        make_folder: a new folder for the files.

    Raises:
        NotFound: no repository has it and the overrides do not make it, or another kind of replica serves it.
        BadInput: the folder or an override is wrong.
    """
    files = {key.removeprefix(FILE): value for key, value in parameters.items() if key.startswith(FILE)}
    config = _config(name, parameters[CONFIG]) if CONFIG in parameters else None
    if files and config is None:
        raise BadInput("must be given with files, which stand in for the model's folder", field=f"parameters.{CONFIG}")
    if config is None or not files:
        model = _own(load_one(settings, name))
        return model if config is None else _model(name, model.folder, config, model)
    if not _NAME.fullmatch(name):
        problem = f"{shown(name)} cannot stand in an address"
        raise BadInput(problem, field="model name", fix="use letters, digits, '.', '_' and '-'")
    if triton_backend(config) == RAY_BACKEND:
        raise _elsewhere(name)
    known = _known(settings, name)
    folder = make_folder()
    for path, content in files.items():
        _write(folder, path, content)
    return _model(name, folder, config, known)


def ensemble_steps(settings: Settings, model: Model) -> list[Model]:
    """The models an ensemble is made of, and those of ensembles among them; empty for any other model.

    Steps that no repository has are left out: Triton refuses the ensemble and names them.
    """
    found: dict[str, Model] = {}
    todo = steps(model)
    while todo:
        name = todo.pop()
        if name in found or name == model.name:
            continue
        try:
            found[name] = _own(load_one(settings, name))
        except NotFound:
            continue
        todo += steps(found[name])
    return list(found.values())


def _known(settings: Settings, name: str) -> Model | None:
    """The model of the repository that overrides stand in for; whatever is wrong with it does not matter then."""
    try:
        found = load_one(settings, name)
    except (NotFound, BadInput):
        return None
    return _own(found)


def _own(model: Model) -> Model:
    if model.replica_group != TRITON_GROUP:
        raise _elsewhere(model.name)
    return model


def _elsewhere(name: str) -> NotFound:
    return NotFound(f"no Triton replica serves '{name[:128]}'", field="model")


def _model(name: str, folder: Path, config: ModelConfig, known: Model | None) -> Model:
    versions = tuple(sorted(int(path.name) for path in folder.iterdir() if _VERSION.fullmatch(path.name)))
    if not triton_backend(config):
        config.backend = file_backend(folder, versions, config)
    card = known.card if known is not None else derived_card(triton_backend(config))
    return Model(name, folder, card, config, versions)


def _config(name: str, text: object) -> ModelConfig:
    field = f"parameters.{CONFIG}"
    if not isinstance(text, str):
        raise BadInput("must be a string that holds JSON", field=field)
    document = parse_object(text.encode("utf-8", "surrogatepass"), field)
    try:
        config = ParseDict(document, ModelConfig())
    except (ParseError, ValueError, TypeError, RecursionError) as error:
        raise BadInput(f"is no model configuration: {foreign_text(error)}", field=field) from error
    if config.name not in ("", name):
        raise BadInput(f"names the model {shown(config.name)}, not '{name}'", field=field, fix="leave name out")
    config.name = name
    return config


def _write(folder: Path, path: str, content: object) -> None:
    field = f"parameters.{FILE}{path[:64]}"
    parts = path.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise BadInput("must stay inside the model's folder", field=field, fix="for example 1/model.onnx")
    try:
        data = base64.b64decode(content if isinstance(content, str) else b"!", validate=True)
        file = folder.joinpath(*parts)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    except (binascii.Error, ValueError) as error:
        raise BadInput("must be a string in base64", field=field) from error
    except OSError as error:
        raise BadInput(f"cannot be written: {error.strerror}", field=field) from error
