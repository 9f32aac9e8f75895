"""MusicEngine: composes and plays an instrumental bed without weights or samples; loaded by Ray replicas as ``synth``.

The one invariant: length, mood and seed decide every sample.
"""

import tempfile
from pathlib import Path

from serving.backends.base import EngineContext
from serving.backends.call import Call
from serving.backends.ray.engines.music_instruments import RATE_HZ
from serving.backends.ray.engines.music_render import play
from serving.backends.ray.engines.music_score import compose
from serving.backends.ray.engines.threads import in_thread
from serving.errors import BadInput
from serving.protocol.tasks import MusicRequest, MusicResult, TaskRequest, TaskResult
from serving.repository.model import Model


class MusicEngine:
    """Serves the ``music`` task.

    Args:
        model: its card; no options.
        context: what the replica gives.
    """

    def __init__(self, model: Model, context: EngineContext) -> None:
        self._artifacts = context.artifacts
        self._scratch = context.scratch

    async def run(self, request: TaskRequest, call: Call) -> TaskResult:
        """Compose and play; checks for cancellation every 8 s of music (0.2 s of work).

        Raises:
            BadInput: not a music request.
        """
        if not isinstance(request, MusicRequest):
            raise BadInput(f"the music engine cannot answer {type(request).__name__}")
        with tempfile.TemporaryDirectory(dir=self._scratch, prefix="music-") as folder:
            path = Path(folder) / "music.wav"
            frames = await in_thread(call, lambda: _write(path, request, call))
            audio = await self._artifacts.put_file(path, media_type="audio/wav", name=f"{request.mood}.wav")
        return MusicResult(audio=audio, duration_s=frames / RATE_HZ)

    async def close(self) -> None:
        """Nothing is held."""


def _write(path: Path, request: MusicRequest, call: Call) -> int:
    import soundfile

    score = compose(request.duration_s, request.mood, request.seed)
    frames = 0
    with soundfile.SoundFile(path, "w", RATE_HZ, 2, "PCM_16", format="WAV") as file:
        for block in play(score, call.checkpoint):
            file.write(block)
            frames += len(block)
    return frames
