"""One file per engine family, and the table that finds them; read by replicas, lint and doctor.

The one invariant: nothing heavy is imported before an engine of the family is loaded.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Final, cast

from serving.backends.base import Engine, EngineContext, TensorEngine
from serving.errors import BadInput
from serving.repository.model import Model

ENGINES: Final[Mapping[str, str]] = {
    "espeak": "serving.backends.ray.engines.espeak:EspeakEngine",
    "pocketsphinx": "serving.backends.ray.engines.pocketsphinx:PocketsphinxEngine",
    "synth": "serving.backends.ray.engines.music:MusicEngine",
    "puppet": "serving.backends.ray.engines.lipsync:LipSyncEngine",
    "compositor": "serving.backends.ray.engines.compositor:CompositorEngine",
    "audio_mix": "serving.backends.ray.engines.audio_mix:AudioMixEngine",
    "title_card": "serving.backends.ray.engines.title_card:TitleCardEngine",
    "ken_burns": "serving.backends.ray.engines.ken_burns:KenBurnsEngine",
}
"""Engine name, as model.yaml writes it, to ``module:class``."""

TENSOR_ENGINES: Final[Mapping[str, str]] = {
    "onnxruntime": "serving.backends.ray.engines.tensor_onnx:OnnxEngine",
    "python": "serving.backends.ray.engines.tensor_python:PythonEngine",
}
"""Engines of the task ``tensor``: they run what Triton's backends of the same names run."""


def load_engine(model: Model, context: EngineContext) -> Engine:
    """Load a model with the engine its card names.

    Raises:
        BadInput: no such engine.
        ReelmeshError: whatever the engine raises when it cannot load.
    """
    return cast(Engine, _engine_class(model, ENGINES)(model, context))


def load_tensor_engine(model: Model, context: EngineContext) -> TensorEngine:
    """Load the newest version of a model of task ``tensor``.

    Raises:
        BadInput: no such engine, or files and config.pbtxt do not fit.
        ReelmeshError: whatever the engine raises when it cannot load.
    """
    return cast(TensorEngine, _engine_class(model, TENSOR_ENGINES)(model, context))


def _engine_class(model: Model, engines: Mapping[str, str]) -> Callable[[Model, EngineContext], object]:
    address = engines.get(model.card.engine)
    if address is None:
        raise BadInput(
            f"there is no engine {model.card.engine!r}",
            field=f"{model.name}/model.yaml:engine",
            fix=f"use one of {', '.join(sorted(engines))}",
        )
    module, _, name = address.partition(":")
    engine_class: Callable[[Model, EngineContext], object] = getattr(importlib.import_module(module), name)
    return engine_class
