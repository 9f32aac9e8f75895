"""A model as a load's overrides have it; used by ModelSet.

The one invariant: what comes out has an engine that runs its files, and versions.
"""

from pathlib import Path

from serving.backends.overrides import Overrides, check_new_name, write_files
from serving.errors import BadInput
from serving.repository.derive import RAY_BACKEND, derived_card, tensor_engine, triton_backend
from serving.repository.model import TENSOR_TASK, Model


def newcomer(name: str, overrides: Overrides, *, triton: bool) -> Model | None:
    """A model that no repository has, made of files alone; None where it is not a Ray replica's.

    Args:
        name: of the model.
        overrides: with files, and so with a config.
        triton: whether the mesh has Triton, whose every model is that does not say ``backend: "ray"``.

    Raises:
        BadInput: a model cannot have that name.
    """
    config = overrides.config
    if config is None or (triton and triton_backend(config) != RAY_BACKEND):
        return None
    check_new_name(name)
    return Model(name, Path(), derived_card(RAY_BACKEND, RAY_BACKEND), config, ())


def overridden(model: Model, overrides: Overrides, folder: Path) -> Model:
    """The model as the overrides have it.

    Args:
        model: as its own folder has it.
        overrides: of a load.
        folder: where given files are written; not made yet.

    Raises:
        BadInput: the model has a typed task, or no engine runs the files.
    """
    if overrides.config is None and not overrides.files:
        return model
    if model.card.task != TENSOR_TASK:
        raise BadInput(f"model '{model.name}' is of task {model.card.task} and takes no overrides", field="config")
    home, versions = model.folder, model.versions
    if overrides.files:
        home, versions = folder, write_files(folder, overrides.files)
    config = overrides.config or model.config
    engine = tensor_engine(home, versions, config)
    if not engine or not versions:
        raise BadInput(
            f"failed to load '{model.name}', no version folder holds a file that an engine runs", field="config"
        )
    return Model(model.name, home, model.card.model_copy(update={"engine": engine}), config, versions)
