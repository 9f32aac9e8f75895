"""Models as a load asks for them: read afresh from the repository, or made of the call's overrides; used by control.py.

The one invariant: files of a call are written below a folder of the call's own, whatever their paths say.
"""

from collections.abc import Callable
from pathlib import Path

from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.backends.control import Json
from serving.backends.overrides import check_new_name, read_overrides, versions_in, write_files
from serving.errors import BadInput, NotFound
from serving.repository.derive import RAY_BACKEND, derived_card, file_backend, triton_backend
from serving.repository.model import TRITON_GROUP, Model
from serving.repository.served import load_one, steps
from serving.settings import Settings


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
    overrides = read_overrides(name, parameters)
    config = overrides.config
    if config is None or not overrides.files:
        model = _own(load_one(settings, name))
        return model if config is None else _model(name, model.folder, config, model)
    check_new_name(name)
    if triton_backend(config) == RAY_BACKEND:
        raise _elsewhere(name)
    known = _known(settings, name)
    folder = make_folder()
    write_files(folder, overrides.files)
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
    versions = versions_in(folder)
    if not triton_backend(config):
        config.backend = file_backend(folder, versions, config)
    card = known.card if known is not None else derived_card(triton_backend(config))
    return Model(name, folder, card, config, versions)
