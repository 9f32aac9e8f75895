"""Adapters turn a typed task into inferences of Triton and back; chosen by ``engine`` in model.yaml.

The one invariant: an adapter holds no state between calls, so calls may run side by side.
"""

import difflib
import importlib
from collections.abc import Mapping
from typing import Final, Protocol

from serving.artifacts.store import ArtifactStore
from serving.backends.call import Call
from serving.backends.triton.client import Tensors
from serving.errors import BadInput
from serving.protocol.tasks import TaskRequest, TaskResult
from serving.repository.model import Model

ADAPTERS: Final[Mapping[str, str]] = {
    "audio_features": "AudioFeaturesAdapter",
    "face_landmarks": "FaceLandmarksAdapter",
    "voice_activity": "VoiceActivityAdapter",
}
"""Engine name, which is the module's too, to the class in it."""


class Adapter(Protocol):
    """Answers one task with one model."""

    def __init__(self, model: Model, tensors: Tensors, artifacts: ArtifactStore) -> None:
        """Keep what is needed; nothing is loaded here."""

    async def run(self, request: TaskRequest, call: Call) -> TaskResult:
        """Answer one request; raises errors of serving.errors."""


def load_adapter(model: Model, tensors: Tensors, artifacts: ArtifactStore) -> Adapter | None:
    """The model's adapter, or None for a model that is reached by OIP alone.

    Raises:
        BadInput: no adapter has the name that model.yaml gives.
    """
    if model.card.task == "tensor":
        return None
    name = ADAPTERS.get(model.card.engine)
    if name is None:
        near = difflib.get_close_matches(model.card.engine, ADAPTERS, n=1)
        raise BadInput(
            f"no Triton adapter {model.card.engine!r} for task {model.card.task!r}",
            field=f"{model.folder / 'model.yaml'}:engine",
            fix=f"use one of {', '.join(near or ADAPTERS)}, or task: tensor for OIP alone",
        )
    module = importlib.import_module(f"{__name__}.{model.card.engine}")
    adapter: type[Adapter] = getattr(module, name)
    return adapter(model, tensors, artifacts)
