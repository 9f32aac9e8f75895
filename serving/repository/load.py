"""Loads the model repositories into a Repository of checked models; called by the composition root, the CLI and k8s.

The one invariant: what loads has no errors in it; one broken file refuses the whole start, with the fix in the message.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from serving.errors import BadInput, NotFound
from serving.repository.checks import Engines, check_model, check_together, shadowed
from serving.repository.derive import DEFAULT_FILES, is_version
from serving.repository.findings import Finding, as_error, errors
from serving.repository.model import TRITON_GROUP, Model
from serving.repository.read import RawModel, read_model

_NO_FOLDER = "run this in the checkout, or name a folder of models with --model-repository"


class Repository:
    """The checked models of all repositories.

    Args:
        models: by name.
        broken: what is wrong with the models that cannot serve, by name; empty where one would refuse the start.
    """

    def __init__(self, models: Mapping[str, Model], broken: Mapping[str, BadInput] | None = None) -> None:
        self.models: Mapping[str, Model] = MappingProxyType(dict(sorted(models.items())))
        self.broken: Mapping[str, BadInput] = MappingProxyType(dict(sorted((broken or {}).items())))
        self._by_alias = {alias: model for model in self.models.values() for alias in model.card.aliases}

    def get(self, name_or_alias: str) -> Model:
        """The model of that name or alias; raises :class:`NotFound` with the nearest name."""
        model = self.models.get(name_or_alias) or self._by_alias.get(name_or_alias)
        if model is None:
            near = difflib.get_close_matches(name_or_alias, [*self.models, *self._by_alias], n=1)
            fix = f"did you mean {near[0]!r}?" if near else "see `reelmesh models list`"
            raise NotFound(f"no model {name_or_alias[:128]!r}", field="model", fix=fix)
        return model

    def for_task(self, task: str) -> list[Model]:
        """Models of a task, the one to use first in front: its card says ``default: true``, else the first by name.

        An optional default goes before the other, since somebody asked for it; other optional models come after.
        Weights that not everybody may use for commercial work come last unless a card asks for them: who names no
        model, a pipeline for one, is not refused for what somebody fetched beside the others.
        """
        models = [model for model in self.models.values() if model.card.task == task]
        return sorted(models, key=_place_in_task)

    def triton(self) -> list[Model]:
        """Models that Triton serves, by name."""
        return [model for model in self.models.values() if model.replica_group == TRITON_GROUP]

    def groups(self) -> Mapping[str, list[Model]]:
        """Ray replica groups by name, each with its models by name; Triton's models are in none of them."""
        groups: dict[str, list[Model]] = {}
        for model in self.models.values():
            if model.replica_group != TRITON_GROUP:
                groups.setdefault(model.replica_group, []).append(model)
        return MappingProxyType(dict(sorted(groups.items())))

    def __reduce__(self) -> tuple[object, ...]:
        """Replicas get the models themselves, not the read-only views on them."""
        return Repository, (dict(self.models), dict(self.broken))


def load_repository(paths: Sequence[Path], engines: Engines | None = None) -> Repository:
    """Load repositories; where two have a model of the same name the first one wins.

    Args:
        paths: folders of models.
        engines: engine names by backend; None leaves them unchecked, as a replica does, which finds its own missing.

    Raises:
        BadInput: a folder is missing, or a model in it is wrong; names file, line, field and fix of the first problem.
    """
    raws, findings = read_repositories(paths, engines)
    if wrong := errors(findings):
        raise as_error(wrong)
    return Repository({raw.name: checked(raw) for raw in raws})


def load_sound(paths: Sequence[Path], engines: Engines | None = None) -> Repository:
    """Load the models that are right and keep what is wrong with the others in :attr:`Repository.broken`.

    For a mesh whose models come and go while it runs: what somebody is just copying into a folder harms no other.

    Raises:
        BadInput: a folder of models is missing.
    """
    raws, findings = read_repositories(paths, engines)
    wrong = errors(findings)
    own = {raw.name: [found for found in wrong if found.file.is_relative_to(raw.folder)] for raw in raws}
    if elsewhere := [found for found in wrong if not any(found in of_model for of_model in own.values())]:
        raise as_error(elsewhere)
    broken = {name: as_error(of_model) for name, of_model in own.items() if of_model}
    return Repository({raw.name: checked(raw) for raw in raws if raw.name not in broken}, broken)


def read_repositories(paths: Sequence[Path], engines: Engines | None = None) -> tuple[list[RawModel], list[Finding]]:
    """Every model that would serve, and everything wrong with the repositories."""
    raws: dict[str, RawModel] = {}
    findings: list[Finding] = []
    for path in paths:
        if not path.is_dir():
            findings.append(Finding(path, 0, "-", "no such folder", _NO_FOLDER))
            continue
        if is_model(path):
            fix = f"name its parent: --model-repository {path.resolve().parent}"
            findings.append(Finding(path, 0, "-", "this is the folder of a model, and no folder of models", fix))
            continue
        for folder in model_folders(path):
            if folder.name in raws:
                findings.append(shadowed(folder.name, folder, raws[folder.name].folder))
            else:
                raws[folder.name] = read_model(folder)
    for raw in raws.values():
        findings += [*raw.findings, *check_model(raw, engines)]
    findings += check_together(list(raws.values()))
    return list(raws.values()), findings


def _place_in_task(model: Model) -> tuple[bool, bool, bool, str]:
    card, terms = model.card, model.card.license
    bound = terms.commercial_use is not True and not terms.is_unknown
    return not card.default, bound, card.optional is not card.default, model.name


def is_model(path: Path) -> bool:
    """Whether a folder is a model itself: it has a configuration, or versions with a model's file."""
    versions = [folder for folder in path.glob("[0-9]*") if is_version(folder.name)]
    files = [path / "config.pbtxt", path / "model.yaml"]
    files += [folder / name for folder in versions for name in DEFAULT_FILES.values()]
    return any(file.is_file() for file in files)


def model_folders(path: Path) -> list[Path]:
    """The folders of a repository that are models, by name; none where there is no such repository any more."""
    if not path.is_dir():
        return []
    folders = sorted(path.resolve().iterdir())
    return [folder for folder in folders if folder.is_dir() and not folder.name.startswith((".", "_"))]


def checked(raw: RawModel) -> Model:
    """The model of a folder in which nothing wrong was found."""
    if raw.card is None or raw.config is None:
        raise BadInput("the model could not be read", field=str(raw.folder), fix="run `reelmesh models lint`")
    return Model(raw.name, raw.folder, raw.card, raw.config, raw.versions)
