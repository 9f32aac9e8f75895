"""One file per engine family, and the table that finds them; read by replicas, lint and doctor.

The one invariant: nothing heavy is imported before an engine of the family is loaded.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Final, TypeVar, cast

from serving.backends.base import Engine, EngineContext, TensorEngine
from serving.errors import BadInput
from serving.repository.model import Model

_HERE: Final = "serving.backends.ray.engines"

ENGINES: Final[Mapping[str, Mapping[str, str]]] = {
    "espeak": {"speech": f"{_HERE}.espeak:EspeakEngine"},
    "pocketsphinx": {
        "alignment": f"{_HERE}.pocketsphinx:PocketsphinxEngine",
        "transcription": f"{_HERE}.pocketsphinx:PocketsphinxEngine",
    },
    "synth": {"music": f"{_HERE}.music:MusicEngine"},
    "puppet": {"lip_sync": f"{_HERE}.lipsync:LipSyncEngine"},
    "compositor": {"composition": f"{_HERE}.compositor:CompositorEngine"},
    "audio_mix": {"audio_mix": f"{_HERE}.audio_mix:AudioMixEngine"},
    "diffusers": dict.fromkeys(
        ("image", "text_to_video", "image_to_video", "music"), f"{_HERE}.diffusion.families:engine_of"
    ),
    "title_card": {"image": f"{_HERE}.title_card:TitleCardEngine"},
    "wav2lip": {"lip_sync": f"{_HERE}.wav2lip:Wav2LipEngine"},
    "fomm": {"face_animation": f"{_HERE}.fomm:FommEngine"},
    "sadtalker": {"face_motion": f"{_HERE}.sadtalker:SadTalkerEngine"},
    "xception": {"manipulation_detection": f"{_HERE}.xception:XceptionEngine"},
    "ken_burns": {"image_to_video": f"{_HERE}.ken_burns:KenBurnsEngine"},
    "faster_whisper": {"transcription": f"{_HERE}.whisper.faster:FasterWhisperEngine"},
    "coqui": {"speech": f"{_HERE}.coqui.engine:coqui_engine"},
    "transformers": {
        "transcription": f"{_HERE}.whisper.transformers:TransformersWhisperEngine",
        "translation": f"{_HERE}.translation.engine:TranslationEngine",
        "music": f"{_HERE}.musicgen.engine:MusicgenEngine",
        "speech": f"{_HERE}.voices.vits:VitsEngine",
    },
}
"""Engine name, as model.yaml writes it, and the tasks it does, to ``module:class``."""

TENSOR_ENGINES: Final[Mapping[str, str]] = {
    "onnxruntime": "serving.backends.ray.engines.tensor_onnx:OnnxEngine",
    "python": "serving.backends.ray.engines.tensor_python:PythonEngine",
}
"""Engines of the task ``tensor``: they run what Triton's backends of the same names run."""


def load_engine(model: Model, context: EngineContext) -> Engine:
    """Load a model with the engine its card names.

    Raises:
        BadInput: no such engine, or it does not do the card's task.
        ReelmeshError: whatever the engine raises when it cannot load.
    """
    tasks = _found(model, ENGINES, model.card.engine, "engine")
    return cast(Engine, _imported(_found(model, tasks, model.card.task, "task"))(model, context))


def load_tensor_engine(model: Model, context: EngineContext) -> TensorEngine:
    """Load the newest version of a model of task ``tensor``.

    Raises:
        BadInput: no such engine, or files and config.pbtxt do not fit.
        ReelmeshError: whatever the engine raises when it cannot load.
    """
    return cast(TensorEngine, _imported(_found(model, TENSOR_ENGINES, model.card.engine, "engine"))(model, context))


T = TypeVar("T")


def _found(model: Model, table: Mapping[str, T], wanted: str, field: str) -> T:
    if wanted not in table:
        raise BadInput(
            f"there is no {field} {wanted!r}" + (f" of the engine {model.card.engine!r}" if field == "task" else ""),
            field=f"{model.name}/model.yaml:{field}",
            fix=f"use one of {', '.join(sorted(table))}",
        )
    return table[wanted]


def _imported(address: str) -> Callable[[Model, EngineContext], object]:
    module, _, name = address.partition(":")
    engine_class: Callable[[Model, EngineContext], object] = getattr(importlib.import_module(module), name)
    return engine_class
