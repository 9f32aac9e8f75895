"""Whisper's log-mel features of any medium, as an artifact; loaded by adapters.load_adapter.

The one invariant: the whole clip goes through the model at once, since the features are relative to its loudest frame.
"""

import io
from typing import Final

import numpy as np

from serving.artifacts.store import ArtifactStore
from serving.backends.call import Call
from serving.backends.triton.client import Tensors
from serving.errors import BadInput, EngineFailed
from serving.media.ffmpeg import decode_audio
from serving.protocol.tasks import AudioFeaturesRequest, AudioFeaturesResult, TaskRequest
from serving.repository.model import Model

RATE_HZ: Final = 16_000
HOP: Final = 160
SHORTEST: Final = 201
"""Samples; the transform reflects half its window of 400 at each end."""
LONGEST_S: Final = 600.0
"""38 MB of samples in one inference; longer media are sent in parts."""


class AudioFeaturesAdapter:
    """Runs ``audio_features`` requests."""

    def __init__(self, model: Model, tensors: Tensors, artifacts: ArtifactStore) -> None:
        self._model = model.name
        self._tensors = tensors
        self._artifacts = artifacts

    async def run(self, request: TaskRequest, call: Call) -> AudioFeaturesResult:
        """Make the features.

        Raises:
            BadInput: there is no audio in the medium, or less than 13 ms.
            TooLarge: more than ten minutes.
        """
        if not isinstance(request, AudioFeaturesRequest):
            raise EngineFailed(f"{self._model} was sent a {type(request).__name__}")
        path = await self._artifacts.local_path(request.audio)
        samples = await decode_audio(path, RATE_HZ, max_s=LONGEST_S, checkpoint=call.checkpoint)
        if len(samples) < SHORTEST:
            raise BadInput(f"the audio has {len(samples) / RATE_HZ:.3f} s", field="audio", fix="send at least 0.013 s")
        outputs = await self._tensors.infer(self._model, {"AUDIO": samples}, ["FEATURES"], call)
        features = outputs["FEATURES"]
        file = io.BytesIO()
        np.save(file, features.astype(np.float32, copy=False), allow_pickle=False)
        ref = await self._artifacts.put_bytes(file.getvalue(), media_type="application/x-npy", name="log-mel.npy")
        return AudioFeaturesResult(features=ref, frames=len(features), hop_s=HOP / RATE_HZ)
