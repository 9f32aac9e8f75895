"""Engines on tiny random-weight checkpoints, as a replica loads them; used by the tests of engines.

The one invariant: what is tested is the model's own folder of the repository, with other weights.
"""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

from serving.artifacts.store import ArtifactStore
from serving.backends.base import Engine, EngineContext
from serving.backends.ray.engines import load_engine
from serving.backends.ray.tiny.build import tiny_model_folder
from serving.repository.load import load_repository
from serving.repository.model import Model
from serving.settings import Settings
from serving.weights.cache import WeightsCache

REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"


@functools.cache
def _into() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="reelmesh-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def tiny_model(name: str) -> Model:
    """The model of the repository with its tiny checkpoint."""
    tiny_model_folder(load_repository([REPOSITORY]).get(name), _into())
    return load_repository([_into()]).get(name)


def context_in(folder: Path, **changes: Any) -> EngineContext:
    """What a replica would give, under ``folder``."""
    settings = Settings(home=folder).resolved()
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    store = ArtifactStore.of(settings)
    return EngineContext(artifacts=store, scratch=scratch, weights=WeightsCache.of(settings), **changes)


def changed(model: Model, **card: Any) -> Model:
    """The model with other fields in its card."""
    return Model(model.name, model.folder, model.card.model_copy(update=card), model.config, model.versions)


def tiny_engine(name: str, context: EngineContext, **card: Any) -> Engine:
    """The model's engine, loaded with its tiny checkpoint."""
    return load_engine(changed(tiny_model(name), **card), context)
