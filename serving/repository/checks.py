"""The checks on model folders that were read, one by one and all together; used by repository.load and lint.

The one invariant: checks look at what was read and at which files exist; they change nothing and raise nothing.
"""

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.protocol.tasks import TASKS
from serving.repository.advice import advise, advise_together
from serving.repository.checks_backend import check_backend
from serving.repository.checks_batching import check_batching
from serving.repository.checks_ensemble import check_ensemble, check_ensembles
from serving.repository.checks_instances import check_instances
from serving.repository.checks_optimized import check_optimized
from serving.repository.checks_source import check_sources
from serving.repository.checks_tensors import check_tensors
from serving.repository.derive import (
    DEFAULT_FILES,
    RAY_BACKEND,
    TENSOR_ENGINES,
    is_version,
    served_versions,
    triton_backend,
)
from serving.repository.findings import Finding
from serving.repository.model import TENSOR_TASK, License, ModelCard
from serving.repository.places import at_card, at_config
from serving.repository.read import RawModel
from serving.repository.task_io import check_task_io

RESERVED_GROUPS: Final = frozenset({"edge", "gateway", "worker", "triton"})
"""Deployments of the mesh itself; a replica group may not take their names."""

Engines = Mapping[str, Mapping[str, Collection[str]]]
"""By backend (``ray``, ``triton``), engine names and the tasks each does; given by whoever knows them, since the
repository lies below them."""


def check_model(raw: RawModel, engines: Engines | None = None) -> Iterator[Finding]:
    """Everything that one folder shows by itself; engine names are checked where they are known."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", raw.name):
        fix = "rename it with letters, digits, '.', '_' and '-'"
        yield Finding(raw.folder, 0, "-", f"{raw.name!r} cannot stand in an address", fix)
    yield from _check_folders(raw)
    if raw.config is not None:
        yield from _check_config(raw, raw.config)
    if raw.card is not None and raw.has_card:
        yield from _check_card(raw, raw.card)
        if engines is not None:
            yield from _check_engine(raw, raw.card, engines)
    if raw.config is not None and raw.card is not None:
        yield from _check_together(raw, raw.config, raw.card)
        yield from advise(raw, raw.config, raw.card)


def check_together(models: Sequence[RawModel]) -> Iterator[Finding]:
    """Everything that needs all models: aliases, fallbacks, defaults, ensembles, chosen parts."""
    cards = {raw.name: raw for raw in models if raw.card is not None}
    yield from _check_aliases(cards)
    yield from _check_fallbacks(cards)
    yield from _check_defaults(cards)
    named = {raw.name: raw for raw in models}
    yield from check_ensembles(named)
    yield from check_optimized(named)
    yield from advise_together(named)


def _check_folders(raw: RawModel) -> Iterator[Finding]:
    files = {*DEFAULT_FILES.values(), *([raw.config.default_model_filename] if raw.config is not None else [])} - {""}
    for path in sorted(raw.folder.iterdir()):
        if is_version(path.name) or not path.is_dir():
            continue
        named_as_one = re.fullmatch(r"[vV]?\d[\d.]*", path.name) is not None
        if named_as_one or any((path / file).exists() for file in files):
            fix = "rename it to a whole number, without a zero in front"
            problem = f"version folder {path.name!r} is not a number Triton counts, so it never serves"
            yield Finding(path, 0, "-", problem, fix, "warning")
    needs_files = raw.config is not None and raw.card is not None and _has_files(raw.card)
    if needs_files and not raw.versions:
        fix = f"make {raw.name}/1/ and put the model's file in it"
        yield Finding(raw.folder, 0, "-", "a Triton model needs a version folder", _export_fix(raw) or fix)
    if needs_files and raw.versions and raw.config is not None:
        yield from _check_version_files(raw, raw.config)


def _has_files(card: ModelCard) -> bool:
    """Whether a model is made of files in version folders, as Triton's are and those of tensor engines."""
    return card.backend == "triton" or card.task == TENSOR_TASK


def _check_version_files(raw: RawModel, config: ModelConfig) -> Iterator[Finding]:
    backend = triton_backend(config)
    if backend == RAY_BACKEND and raw.card is not None:
        backend = raw.card.engine
    file = config.default_model_filename or DEFAULT_FILES.get(backend, "")
    for version in served_versions(config, raw.versions) if file else ():
        folder = raw.folder / str(version)
        lacking = {gpu: name for gpu, name in config.cc_model_filenames.items() if not (folder / name).exists()}
        if not (folder / file).exists() and len(lacking) == len(config.cc_model_filenames):
            fix = _export_fix(raw) or "put it there, or set default_model_filename"
            yield Finding(folder / file, 0, "-", "the version's file is missing", fix)
            continue
        for gpu, name in sorted(lacking.items()):
            problem = f"the version's file for GPUs of compute capability {gpu} is missing"
            yield Finding(folder / name, 0, "-", problem, "build it on such a GPU, or take its line out", "warning")


def _export_fix(raw: RawModel) -> str:
    return f"run `reelmesh optimize {raw.name}`" if raw.card is not None and raw.card.export is not None else ""


def _check_config(raw: RawModel, config: ModelConfig) -> Iterator[Finding]:
    if not triton_backend(config):
        fix = f'name one, for example backend: "{next(iter(DEFAULT_FILES))}"'
        yield at_config(raw, "backend", "neither backend nor platform is set", fix)
    for check in (check_backend, check_tensors, check_batching, check_instances, check_ensemble):
        yield from check(raw, config)


def _check_card(raw: RawModel, card: ModelCard) -> Iterator[Finding]:
    if card.task not in TASKS and card.task != TENSOR_TASK:
        yield at_card(raw, "task", f"no task {card.task!r}", _one_of(card.task, [*TASKS, TENSOR_TASK]))
    if card.replicas.min > card.replicas.max:
        yield at_card(raw, "replicas.min", f"{card.replicas.min} is over max", "make max at least as large")
    if card.share.gpu > 1 and card.share.gpu != int(card.share.gpu):
        yield at_card(raw, "share.gpu", f"{card.share.gpu} is not whole", "above 1, use whole GPUs")
    if card.replica_group in RESERVED_GROUPS:
        yield at_card(raw, "replica_group", f"{card.replica_group!r} is the mesh's own", "choose another name")
    if card.replica_group is not None and card.backend == "triton":
        yield at_card(raw, "replica_group", "has no effect on a Triton model", "remove it", warning=True)
    if card.memory is not None and card.memory.peak_mib < card.memory.weights_mib:
        yield at_card(raw, "memory.peak_mib", "is below weights_mib, which it includes", "measure it again")
    yield from _check_license(raw, card.license)
    yield from check_sources(raw, card)
    if card.voices and card.task != "speech":
        yield at_card(raw, "voices", f"a model of task {card.task!r} has no voices", "remove it")
    if card.task in TASKS:
        fields = TASKS[card.task].request.model_fields
        for name in card.limits:
            if name not in fields:
                yield at_card(raw, f"limits.{name}", "no such request field", _one_of(name, fields))


def _check_license(raw: RawModel, terms: License) -> Iterator[Finding]:
    conditional = terms.commercial_use == "conditional"
    if conditional and terms.condition is None:
        fix = "say in one sentence what must hold for commercial use"
        yield at_card(raw, "license.condition", "is missing, while commercial_use is conditional", fix)
    if not conditional and terms.condition is not None:
        problem = f"has no meaning with commercial_use: {str(terms.commercial_use).lower()}"
        yield at_card(raw, "license.condition", problem, "remove it, or set commercial_use: conditional")


def _check_engine(raw: RawModel, card: ModelCard, engines: Engines) -> Iterator[Finding]:
    known = engines[card.backend]
    if card.task != TENSOR_TASK and card.engine not in known:
        what = "engine" if card.backend == "ray" else "Triton adapter"
        yield at_card(raw, "engine", f"no {what} {card.engine!r}", _one_of(card.engine, known))
    elif card.task in TASKS and card.task not in known[card.engine]:
        able = [engine for engine, tasks in known.items() if card.task in tasks]
        fix = f"engines that do: {', '.join(able)}" if able else f"it does {', '.join(known[card.engine])}"
        yield at_card(raw, "engine", f"{card.engine!r} does not do the task {card.task!r}", fix)


def _check_together(raw: RawModel, config: ModelConfig, card: ModelCard) -> Iterator[Finding]:
    if card.backend == "triton":
        if triton_backend(config) == RAY_BACKEND:
            fix = "set backend: ray in model.yaml, or a Triton backend here"
            yield at_config(raw, "backend", "Triton has no backend named 'ray'", fix)
        return
    if card.task == TENSOR_TASK:
        yield from _check_tensor_engine(raw, config, card)
        return
    if raw.name in RESERVED_GROUPS and card.replica_group is None:
        yield Finding(raw.folder, 0, "-", f"{raw.name!r} is the mesh's own deployment", "rename the folder")
    if config.backend != RAY_BACKEND:
        fix = f'write backend: "{RAY_BACKEND}", so that a bare Triton does not try to load it'
        yield at_config(raw, "backend", f"{triton_backend(config)!r} in a model that a Ray replica serves", fix)
    yield from check_task_io(raw, config, card.task)


def _check_tensor_engine(raw: RawModel, config: ModelConfig, card: ModelCard) -> Iterator[Finding]:
    """A tensor model on Ray runs the files of Triton's backend of the same name, which config.pbtxt may still name."""
    files = " or ".join(DEFAULT_FILES[engine] for engine in TENSOR_ENGINES)
    named = triton_backend(config)
    if named not in ("", RAY_BACKEND, *TENSOR_ENGINES):
        fix = f"let Triton serve it, or use one of {', '.join(TENSOR_ENGINES)}"
        yield at_config(raw, "backend", f"no Ray engine runs models of Triton's backend {named!r}", fix)
    elif card.engine not in TENSOR_ENGINES and raw.has_card:
        yield at_card(raw, "engine", f"no engine {card.engine!r} for tensors", _one_of(card.engine, TENSOR_ENGINES))
    elif card.engine not in TENSOR_ENGINES and raw.versions:
        fix = f"put {files} into it, or let Triton serve the model"
        folder = raw.folder / str(raw.versions[-1])
        yield Finding(folder, 0, "-", "nothing in it that a Ray replica can run", fix)
    elif named in TENSOR_ENGINES and named != card.engine:
        fix = f'set engine: {named} in model.yaml, or backend: "{card.engine}" here'
        yield at_config(raw, "backend", f"{named!r}, while model.yaml says engine {card.engine!r}", fix)


def _check_aliases(models: Mapping[str, RawModel]) -> Iterator[Finding]:
    taken: dict[str, str] = {}
    for raw in models.values():
        for index, alias in enumerate(raw.card.aliases if raw.card else ()):
            owner = alias if alias in models else taken.get(alias)
            if owner is not None:
                problem = f"{alias!r} already names model {owner!r}"
                yield at_card(raw, f"aliases[{index}]", problem, "choose another alias")
            taken.setdefault(alias, raw.name)


def _check_fallbacks(models: Mapping[str, RawModel]) -> Iterator[Finding]:
    for raw in models.values():
        for index, name in enumerate(raw.card.fallback if raw.card else ()):
            other, field = models.get(name), f"fallback[{index}]"
            if name == raw.name:
                yield at_card(raw, field, "a model cannot fall back to itself", "remove it")
            elif other is None:
                where = "add the folder that has it, --model-repository DIR, or remove it"
                near = difflib.get_close_matches(name, models, n=1)
                fix = _one_of(name, models) if near else where
                yield at_card(raw, field, f"no model {name!r} in these folders", fix)
            elif raw.card and other.card and other.card.task != raw.card.task:
                problem = f"{name!r} does {other.card.task!r}, not {raw.card.task!r}"
                yield at_card(raw, field, problem, "name a model of the same task")


def _check_defaults(models: Mapping[str, RawModel]) -> Iterator[Finding]:
    first: dict[str, str] = {}
    for raw in models.values():
        if raw.card is None or not raw.card.default or raw.card.optional:
            continue
        if raw.card.task in first:
            problem = f"{first[raw.card.task]!r} is already the default for {raw.card.task!r}"
            yield at_card(raw, "default", problem, "keep one default per task")
        first.setdefault(raw.card.task, raw.name)


def _one_of(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(names)}"


def shadowed(name: str, folder: Path, winner: Path) -> Finding:
    """A model that a repository before it also has; the first one wins."""
    problem = f"{name!r} is also in {winner.parent}, which comes first"
    return Finding(folder, 0, "-", problem, "rename one, if both should serve", "warning")
