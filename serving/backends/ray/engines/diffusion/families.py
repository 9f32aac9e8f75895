"""Which engine runs which of diffusers' pipelines; the table of engines names ``engine_of`` for ``diffusers``.

The one invariant: the card alone decides (``architecture``); nothing heavy is imported before it has.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Final

from serving.backends.base import Engine, EngineContext
from serving.errors import BadInput, shown
from serving.repository.model import Model

_HERE: Final = "serving.backends.ray.engines.diffusion"

FAMILIES: Final[Mapping[str, Mapping[str, str]]] = {
    "image": {
        "StableDiffusionXLPipeline": f"{_HERE}.sdxl:SdxlEngine",
        "StableDiffusionXLControlNetPipeline": f"{_HERE}.sdxl:SdxlControlEngine",
    },
    "text_to_video": {
        "AnimateDiffPipeline": f"{_HERE}.animatediff:AnimateDiffEngine",
        "CogVideoXPipeline": f"{_HERE}.cogvideox:CogVideoXEngine",
        "LTXPipeline": f"{_HERE}.ltx:LtxEngine",
        "LTX2Pipeline": f"{_HERE}.ltx:Ltx2Engine",
    },
    "image_to_video": {
        "StableVideoDiffusionPipeline": f"{_HERE}.svd:StableVideoEngine",
        "CogVideoXImageToVideoPipeline": f"{_HERE}.cogvideox:CogVideoXPictureEngine",
        "LTXImageToVideoPipeline": f"{_HERE}.ltx:LtxPictureEngine",
        "LTX2ImageToVideoPipeline": f"{_HERE}.ltx:Ltx2PictureEngine",
    },
    "music": {
        "StableAudioPipeline": f"{_HERE}.music:StableAudioEngine",
        "AceStepPipeline": f"{_HERE}.music:AceStepEngine",
    },
}
"""Task, and the pipeline's class in diffusers, to ``module:class``; the first of a task is its default."""


def engine_of(model: Model, context: EngineContext) -> Engine:
    """Load a model with the engine of its pipeline.

    Raises:
        BadInput: no such pipeline for the task; otherwise what the engine raises.
    """
    families = FAMILIES[model.card.task]
    wanted = model.card.architecture or next(iter(families))
    if wanted not in families:
        raise BadInput(
            f"no engine runs {shown(wanted)} for the task {model.card.task!r}",
            field=f"{model.name}/model.yaml:architecture",
            fix=f"use one of {', '.join(families)}",
        )
    module, _, name = families[wanted].partition(":")
    make: Callable[[Model, EngineContext], Engine] = getattr(importlib.import_module(module), name)
    return make(model, context)
