"""Wav2LipEngine: a portrait and a voice become a clip whose mouth speaks; task lip_sync. Loaded by Ray replicas.

The one invariant: a clip has exactly ``round(duration_s * fps)`` frames, framed as engine ``puppet`` frames them, and
only the lower face differs from frame to frame.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import cv2
import numpy as np

from serving.backends.ray.engines.lipsync.face import SUPERSAMPLING, place_face, read_portrait
from serving.backends.ray.engines.network.engine import NetworkEngine, Written, needs
from serving.backends.ray.engines.network.inputs import read_sound
from serving.backends.ray.engines.network.steps import Steps
from serving.backends.ray.engines.networks.clips import MEDIA_TYPE, Clip, encode
from serving.backends.ray.engines.networks.options import whole_number
from serving.backends.ray.engines.networks.wav2lip_mel import FFT, SAMPLE_RATE_HZ, mel_spectrum, windows
from serving.backends.ray.engines.wav2lip_paste import Box, Floats, Picture, face_box, mouth_mask, network_input, paste
from serving.errors import BadInput
from serving.protocol.tasks import MAX_SECONDS, LipSyncRequest

if TYPE_CHECKING:
    import torch

    from serving.backends.ray.engines.networks.wav2lip import Wav2Lip

FRAMES_AT_ONCE: Final = 16
"""Frames in one pass, unless ``options.frames_at_once`` says otherwise; a cancel takes effect after one."""

_MOST_AT_ONCE: Final = 512
_FACE_PX: Final = 96
"""What the network sees and draws."""


class Prepared(NamedTuple):
    """A request, ready for the network.

    Args:
        frame: the placed portrait, uint8 (height, width, 3), red-green-blue.
        box: where its face lies.
        mask: float32 (box height, box width, 1).
        face: float32 (6, 96, 96), what the network sees of it.
        mel: float32 (frames, 80, 16).
        fps: of the clip.
    """

    frame: Picture
    box: Box
    mask: Floats
    face: Floats
    mel: Floats
    fps: int


class Wav2LipEngine(NetworkEngine[LipSyncRequest, Prepared, Clip]):
    """Redraws the mouth of a still portrait for every frame."""

    request_type = LipSyncRequest
    lower = ("width", "height")
    heavy = True

    def load(self) -> None:
        """Read the generator; see :func:`serving.backends.ray.engines.networks.wav2lip.load_wav2lip`."""
        self.network = needs(self._read, "torch")
        self._at_once = whole_number(self.model, "frames_at_once", FRAMES_AT_ONCE, _MOST_AT_ONCE)

    def _read(self) -> "Wav2Lip":
        from serving.backends.ray.engines.networks.checkpoint import read_held
        from serving.backends.ray.engines.networks.wav2lip import load_wav2lip

        return load_wav2lip(read_held(self.model, self.weights)).to(self.placement.device, self.placement.dtype)

    def check(self, request: LipSyncRequest) -> None:
        """It needs the voice, and at least one frame of time."""
        if request.audio is None:
            raise BadInput(
                "this model listens to the voice", field="audio", fix="give the recording, not phonemes alone"
            )
        if round(request.duration_s * request.fps) < 1:
            raise BadInput(
                f"{request.duration_s:g} s holds no frame at {request.fps} frames a second",
                field="duration_s",
                fix=f"ask for at least {1 / request.fps:g} s",
            )

    def prepare(self, request: LipSyncRequest, files: Mapping[str, Path]) -> Prepared:
        """Place the portrait, find its face's box, listen to the voice."""
        picture = read_portrait(files["portrait"], request.portrait.name)
        placed = place_face(picture, np.asarray(request.points, np.float32), request.width, request.height)
        size = request.width, request.height
        frame = np.asarray(cv2.resize(placed.canvas, size, interpolation=cv2.INTER_AREA), np.uint8)
        points = (placed.points + 0.5) / SUPERSAMPLING - 0.5
        box = face_box(points, *size)
        samples = read_sound(
            files["audio"], "audio", SAMPLE_RATE_HZ, least_s=FFT / SAMPLE_RATE_HZ, most_s=_most_s(self)
        )
        wanted = round(request.duration_s * SAMPLE_RATE_HZ)
        heard = np.zeros(max(wanted, FFT), np.float32)
        heard[: min(wanted, len(samples))] = samples[:wanted]
        mel = windows(mel_spectrum(heard), round(request.duration_s * request.fps), request.fps)
        return Prepared(frame, box, mouth_mask(points, box), network_input(frame, box, _FACE_PX), mel, request.fps)

    def generate(self, batch: Sequence[Prepared], steps: Steps) -> Sequence[Clip]:
        """Draw and encode the clips, one after the other; a step is a pass of some frames."""
        clips = []
        for prepared in batch:
            height, width = prepared.frame.shape[:2]
            clips.append(encode(self._frames(prepared, steps), width, height, prepared.fps, self._scratch))
        return clips

    def write(self, request: LipSyncRequest, output: Clip, folder: Path) -> Written:
        """Hand the clip over."""
        path = output.move_to(folder)
        return Written({"frames": output.frames, "fps": output.fps}, {"video": (path, MEDIA_TYPE)})

    def rehearsal(self) -> Prepared:
        """One pass over a grey face."""
        frame = np.full((_FACE_PX, _FACE_PX, 3), 128, np.uint8)
        box = Box(0, 0, _FACE_PX, _FACE_PX)
        mel = np.zeros((self._at_once, 80, 16), np.float32)
        mask = np.ones((_FACE_PX, _FACE_PX, 1), np.float32)
        return Prepared(frame, box, mask, network_input(frame, box, _FACE_PX), mel, 25)

    def _frames(self, prepared: Prepared, steps: Steps) -> Iterator[Picture]:
        from serving.backends.ray.engines.networks.finite import check_finite

        face = self._tensor(prepared.face)[None]
        passes = -(-len(prepared.mel) // self._at_once)
        for done in range(passes):
            mel = self._tensor(prepared.mel[done * self._at_once : (done + 1) * self._at_once])
            drawn = check_finite(self.network(mel[:, None], face.expand(len(mel), -1, -1, -1)), self.model.name)
            pictures = (drawn.float().permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy()[:, :, :, ::-1]
            for picture in pictures:
                yield paste(prepared.frame, prepared.box, prepared.mask, np.ascontiguousarray(picture))
            steps(done + 1, passes)

    def _tensor(self, values: Floats) -> "torch.Tensor":
        import torch

        return torch.from_numpy(values).to(self.placement.device, self.placement.dtype)


def _most_s(engine: Wav2LipEngine) -> float:
    return engine.model.card.limits.get("duration_s", MAX_SECONDS)
