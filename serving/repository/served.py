"""What a mesh with given settings serves, and what of it from the start; asked by the command and by every deployment.

The one invariant: all parts of a mesh ask here, so that they agree on which replica serves which model.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from serving.errors import BadInput, NotFound
from serving.repository.checks import Engines, check_model
from serving.repository.derive import RAY_BACKEND, TENSOR_ENGINES, tensor_engine, triton_backend
from serving.repository.findings import as_error, errors
from serving.repository.load import Repository, checked, load_repository, load_sound, model_folders
from serving.repository.model import TENSOR_GROUP, TENSOR_TASK, TRITON_GROUP, Model
from serving.repository.part_config import owner_of, pinned, served_parts
from serving.repository.read import read_model
from serving.settings import InferenceSettings, Settings

ALL_MODELS: Final = "*"
"""In ``load_models``: every model of the repository."""
_ENSEMBLE: Final = "ensemble"


def load_served(settings: Settings, engines: Engines | None = None) -> Repository:
    """The models as this mesh serves them.

    Where models are loaded and unloaded while it runs (``explicit`` and ``poll``), a broken model is left out and
    told of in :attr:`Repository.broken`; else it refuses the start. With ``inference.triton`` off, Triton's models
    become Ray's.

    Args:
        settings: resolved.
        engines: engine names by backend, as for :func:`load_repository`.

    Raises:
        BadInput: a folder of models is missing, or a model is wrong and none may be.
    """
    inference = settings.inference
    strict = inference.model_control_mode == "none"
    repository = (load_repository if strict else load_sound)(settings.model_repositories, engines)
    repository = with_optional(repository, inference.optional_models, parts=inference.triton != "off")
    if inference.triton == "off":
        repository = _without_triton(repository)
        if strict and repository.broken:
            raise next(iter(repository.broken.values()))
    return repository


def load_one(settings: Settings, name: str, engines: Engines | None = None) -> Model:
    """Read one model afresh, as its folder is now; for loads while the mesh runs.

    Args:
        settings: resolved.
        name: from a client; it is only ever compared with the names of folders.
        engines: engine names by backend, as for :func:`load_repository`.

    Raises:
        NotFound: no repository has such a folder, in Triton's words.
        BadInput: it is there and wrong.
    """
    folders = (folder for path in settings.model_repositories for folder in model_folders(path))
    folder = next((folder for folder in folders if folder.name == name), None)
    if folder is None:
        raise NotFound(f"failed to load '{name[:128]}', failed to poll from model repository", field="model")
    raw = read_model(folder)
    if wrong := errors([*raw.findings, *check_model(raw, engines)]):
        raise as_error(wrong)
    model = _as_chosen(checked(raw))
    moves = settings.inference.triton == "off" and model.card.backend == "triton"
    return on_ray(model) if moves else model


def _as_chosen(model: Model) -> Model:
    """A part in the version that the card of its model chooses, as that is now; any other model as it is."""
    owner = owner_of(model.card)
    folder = model.folder.with_name(owner) if owner else None
    if folder is None or not folder.is_dir() or (card := read_model(folder).card) is None:
        return model
    return pinned(model, card)


def requested(repository: Repository, inference: InferenceSettings) -> list[str]:
    """Names of the models that are loaded at start, and for which readiness waits; an ensemble's steps among them."""
    if inference.model_control_mode != "explicit" or ALL_MODELS in inference.load_models:
        return list(repository.models)
    names: dict[str, None] = {}
    todo = list(inference.load_models)
    while todo:
        name = todo.pop(0)
        if name not in names:
            names[name] = None
            todo += steps(repository.models[name]) if name in repository.models else []
    return list(names)


def steps(model: Model) -> list[str]:
    """The models that an ensemble is made of; empty for any other model."""
    return list(dict.fromkeys(step.model_name for step in model.config.ensemble_scheduling.step))


def check_served(repository: Repository, inference: InferenceSettings) -> None:
    """Refuse what tritonserver refuses at start: a requested model that is broken or not there.

    Raises:
        BadInput: a broken model; with ``poll`` any, since all are requested.
        NotFound: no such model, in ``load_models`` or in ``replicas``.
    """
    everything = inference.model_control_mode != "explicit" or ALL_MODELS in inference.load_models
    for name in repository.broken if everything else requested(repository, inference):
        _check_name(repository, name, f"failed to load {name!r}, no such model", "--load-model")
    for name in inference.replicas:
        _check_name(repository, name, f"no model {name!r} to have replicas of", "--replicas")


def _check_name(repository: Repository, name: str, missing: str, flag: str) -> None:
    if name in repository.broken:
        raise repository.broken[name]
    if name not in repository.models:
        known = ", ".join(repository.models) or "none"
        raise NotFound(missing[:256], field=flag, fix=f"the repository has {known:.256}")


def replica_groups(repository: Repository, inference: InferenceSettings) -> Mapping[str, list[Model]]:
    """The deployments that serve models, by name, each with its models: Triton's first, then Ray's groups.

    Where models may come while the mesh runs, there is a place for them: Triton, and the group of tensor models.
    """
    groups = dict(repository.groups())
    awaiting = inference.model_control_mode != "none"
    if awaiting:
        groups.setdefault(TENSOR_GROUP, [])
    triton = repository.triton()
    if triton or (awaiting and inference.triton == "auto"):
        groups = {TRITON_GROUP: triton, **groups}
    return MappingProxyType(groups)


def with_optional(repository: Repository, asked: Sequence[str], *, parts: bool = True) -> Repository:
    """The repository without the optional models that nobody asked for, which others then do not fall back to either.

    Args:
        repository: all models.
        asked: names; ``*`` means all.
        parts: whether there is a Triton, which then serves the parts that cards let it run, asked for or not.

    Raises:
        NotFound: a model is asked for that is not there.
    """
    for name in asked:
        if name != ALL_MODELS:
            repository.get(name)
    models = {
        name: model
        for name, model in repository.models.items()
        if not model.card.optional or ALL_MODELS in asked or name in asked
    }
    if parts:
        models |= served_parts(models.values(), repository.models)
    if models == dict(repository.models):
        return repository
    return Repository({name: _falling_back(model, models) for name, model in models.items()}, repository.broken)


def _falling_back(model: Model, models: Mapping[str, Model]) -> Model:
    """The model with those of its fallbacks that are there."""
    left = [name for name in model.card.fallback if name in models]
    if left == model.card.fallback:
        return model
    card = model.card.model_copy(update={"fallback": left})
    return Model(model.name, model.folder, card, model.config, model.versions)


def _without_triton(repository: Repository) -> Repository:
    models, broken = dict(repository.models), dict(repository.broken)
    for model in repository.triton():
        try:
            models[model.name] = on_ray(model)
        except BadInput as error:
            del models[model.name]
            broken[model.name] = error
    return Repository(models, broken)


def on_ray(model: Model) -> Model:
    """A Triton model as a Ray replica serves it: by tensors, with the engine for its files.

    Raises:
        BadInput: no engine of a Ray replica runs such a model.
    """
    engine = tensor_engine(model.folder, model.versions, model.config)
    if not engine:
        backend = triton_backend(model.config)
        what = "an ensemble" if backend == _ENSEMBLE else f"a model of backend {backend!r}"
        raise BadInput(
            f"{what} needs Triton, which is off; Ray replicas run {' and '.join(TENSOR_ENGINES)} models",
            field=model.name,
            fix="use --triton auto, or leave the model out with --model-control-mode explicit --load-model NAME",
        )
    changes: dict[str, object] = {"backend": RAY_BACKEND, "task": TENSOR_TASK, "engine": engine, "replica_group": None}
    return Model(model.name, model.folder, model.card.model_copy(update=changes), model.config, model.versions)
