"""LipSyncEngine: one request of the task ``lip_sync`` becomes one clip; loaded by a Ray replica as engine ``puppet``.

The one invariant: a clip has exactly ``round(duration_s * fps)`` frames, and equal requests give equal bytes.
"""

import asyncio
import hashlib
import tempfile
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from serving.backends.base import EngineContext
from serving.backends.call import Call
from serving.backends.ray.engines.lipsync.arrays import Floats
from serving.backends.ray.engines.lipsync.face import place_face, read_portrait
from serving.backends.ray.engines.lipsync.heard import heard_phonemes
from serving.backends.ray.engines.lipsync.motion import Motion, move
from serving.backends.ray.engines.lipsync.mouth_track import (
    frame_loudness,
    mouth_track,
    speaking_window,
    stresses,
)
from serving.backends.ray.engines.lipsync.puppet import Puppet
from serving.backends.ray.engines.lipsync.stage import Stage
from serving.backends.ray.engines.threads import in_thread
from serving.errors import BadInput, TooLarge, foreign_text
from serving.media.ffmpeg import VideoWriter
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import LipSyncRequest, TaskRequest, VideoResult
from serving.repository.model import Model

CLIPS_AT_ONCE: Final = 2
"""Clips one replica renders side by side, unless ``options.clips_at_once`` says otherwise; each keeps a core busy."""

CHECK_EVERY_FRAMES: Final = 5
FEATURES_LIMIT_BYTES: Final = 512 << 20
_MOST_CLIPS: Final = 64
_BANDS: Final = 80


class LipSyncEngine:
    """Animates portraits on the CPU, from phonemes or from sound alone, without weights.

    Args:
        model: its ``limits`` bound fields of the request.
        context: where media lie.
    """

    def __init__(self, model: Model, context: EngineContext) -> None:
        cv2.setNumThreads(1)
        self._model = model
        self._context = context
        self._slots = asyncio.Semaphore(_clips_at_once(model))
        self._stage = Stage()

    async def run(self, request: TaskRequest, call: Call) -> VideoResult:
        """Render one clip.

        Raises:
            BadInput: the picture, its points or the features cannot be used; names the field.
            TooLarge: the clip is longer than the model's limit.
            Cancelled, DeadlineExceeded: at a checkpoint; nothing is left behind.
        """
        if not isinstance(request, LipSyncRequest):
            raise BadInput(f"this model does lip_sync, not {type(request).__name__}", field="request")
        frames = self._frames(request)
        portrait = await self._context.artifacts.local_path(request.portrait)
        features = None
        if request.features is not None:
            features = await asyncio.to_thread(
                read_features, await self._context.artifacts.local_path(request.features), request.features
            )
        async with self._slots:
            call.checkpoint()
            with tempfile.TemporaryDirectory(dir=self._context.scratch, prefix="lipsync-") as folder:
                clip = Path(folder) / "clip.mp4"
                await in_thread(call, lambda: self._render(request, call, portrait, features, frames, clip))
                video = await self._context.artifacts.put_file(clip, media_type="video/mp4")
        return VideoResult(video=video, frames=frames, fps=request.fps)

    async def close(self) -> None:
        """Forget the prepared portraits."""
        self._stage.clear()

    def _frames(self, request: LipSyncRequest) -> int:
        limit = self._model.card.limits.get("duration_s")
        if limit is not None and request.duration_s > limit:
            raise TooLarge(
                f"{request.duration_s:g} s is longer than this model's {limit:g} s",
                field="duration_s",
                fix="render the programme turn by turn",
            )
        frames = round(request.duration_s * request.fps)
        if frames < 1:
            raise BadInput(
                f"{request.duration_s:g} s holds no frame at {request.fps} frames a second",
                field="duration_s",
                fix=f"ask for at least {1 / request.fps:g} s",
            )
        return frames

    def _render(
        self,
        request: LipSyncRequest,
        call: Call,
        portrait: Path,
        features: Floats | None,
        frames: int,
        target: Path,
    ) -> None:
        track, motion = choreograph(request, features, frames)
        points = np.asarray(request.points, np.float32)

        def make() -> Puppet:
            picture = read_portrait(portrait, request.portrait.name)
            return Puppet(place_face(picture, points, request.width, request.height))

        digest = hashlib.sha256(points.tobytes()).hexdigest()
        key = f"{request.portrait.sha256}/{digest}/{request.width}x{request.height}"
        with (
            self._stage.puppet(key, make) as puppet,
            VideoWriter(target, request.width, request.height, request.fps, pixel_format="yuv420p") as video,
        ):
            for index in range(frames):
                if index % CHECK_EVERY_FRAMES == 0:
                    call.checkpoint()
                    call.tell(index / frames)
                video.write(puppet.frame(index, track, motion))


def _clips_at_once(model: Model) -> int:
    wanted = model.card.options.get("clips_at_once", CLIPS_AT_ONCE)
    if not isinstance(wanted, int) or isinstance(wanted, bool) or not 1 <= wanted <= _MOST_CLIPS:
        raise BadInput(
            f"{wanted!r} is not a number of clips",
            field=f"{model.name}/model.yaml:options.clips_at_once",
            fix=f"give a whole number from 1 to {_MOST_CLIPS}",
        )
    return wanted


def choreograph(request: LipSyncRequest, features: Floats | None, frames: int) -> tuple[Floats, Motion]:
    """Everything that moves in a clip: the mouth track ``(frames, 8)`` and the motion of head and eyes."""
    said = request.phonemes
    if not said and features is not None:
        said = heard_phonemes(features, request.features_offset_s)
    phonemes = [p for p in said if p.start_s < request.duration_s]
    loudness = frame_loudness(features, frames, request.fps, request.features_offset_s)
    track = mouth_track(phonemes, loudness, request.fps)
    speaking = speaking_window(phonemes, frames, request.fps)
    beats = stresses(phonemes, loudness, request.fps)
    return track, move(request.start_s, request.fps, request.seed, speaking, beats)


def read_features(path: Path, ref: ArtifactRef) -> Floats:
    """Log-mel features from an ``.npy`` file.

    Raises:
        BadInput: not an npy file, or not float32 of shape ``(frames, 80)``, or with infinite values.
    """
    fix = "give the features of an audio_features result: .npy, float32, shape (frames, 80)"
    if ref.size_bytes > FEATURES_LIMIT_BYTES:
        raise TooLarge(f"features of {ref.size_bytes} bytes", field="features", fix="render turn by turn")
    try:
        with path.open("rb") as stream:
            features = np.lib.format.read_array(stream, allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError) as error:
        raise BadInput(
            f"{ref.name!r} is not a numpy file ({foreign_text(error)})", field="features", fix=fix
        ) from error
    if features.shape[1:] != (_BANDS,) or features.dtype.kind != "f":
        raise BadInput(f"{ref.name!r} holds {features.dtype} {features.shape}", field="features", fix=fix)
    if not np.isfinite(features).all():
        raise BadInput(f"{ref.name!r} holds values that are not numbers", field="features", fix=fix)
    return features.astype(np.float32)
