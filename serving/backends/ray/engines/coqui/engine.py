"""coqui_engine: the engine of a Coqui model, by the network that its card names; called when a model is loaded.

The one invariant: what a card names and what there is are compared before any file is read.
"""

import importlib
from typing import Final, cast

from serving.backends.base import Engine, EngineContext
from serving.errors import BadInput
from serving.repository.model import Model

_NETWORKS: Final = {"vits": "vits:CoquiVitsEngine", "xtts": "xtts:XttsEngine"}


def coqui_engine(model: Model, context: EngineContext) -> Engine:
    """Load a model whose option ``network`` is ``vits`` or ``xtts``.

    Raises:
        BadInput: another network, or its files are wrong.
        MissingDependency: coqui-tts is not installed.
    """
    network = str(model.card.options.get("network"))
    if network not in _NETWORKS:
        field = f"{model.name}/model.yaml:options.network"
        raise BadInput(f"Coqui has no network {network!r} here", field=field, fix=f"use {' or '.join(_NETWORKS)}")
    module, _, name = _NETWORKS[network].partition(":")
    made = getattr(importlib.import_module(f"{__package__}.{module}"), name)
    return cast(Engine, made(model, context))
