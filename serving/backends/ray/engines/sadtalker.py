"""SadTalkerEngine: a voice becomes the motion of a face, in coefficients; task face_motion. Loaded by Ray replicas.

It is SadTalker's first stage. The second, which renders a face from coefficients, rests on the Basel Face Model, whose
licence lets nobody pass it on: it is not here. The one invariant: 25 frames a second for the whole of the sound, and
the motion starts from a neutral face that looks straight ahead.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from serving.backends.ray.engines.network.engine import NetworkEngine, Written, needs
from serving.backends.ray.engines.network.inputs import read_sound
from serving.backends.ray.engines.network.steps import Steps
from serving.backends.ray.engines.networks.options import whole_number
from serving.backends.ray.engines.networks.sadtalker_motion import Floats, blinks, joined, latents, pieces, smoothed
from serving.backends.ray.engines.networks.wav2lip_mel import FFT, SAMPLE_RATE_HZ, centred_windows, mel_spectrum
from serving.protocol.tasks import FaceMotionRequest

if TYPE_CHECKING:
    import torch

    from serving.backends.ray.engines.networks.sadtalker_audio2exp import Audio2Exp
    from serving.backends.ray.engines.networks.sadtalker_audio2pose import Audio2Pose

FPS: Final = 25
AUDIO_S: Final = 600
"""Longest sound in seconds, unless ``options.audio_s`` says otherwise."""

FRAMES_AT_ONCE: Final = 64
_MOST_S: Final = 3600
_PIECE: Final = 32
"""Frames of one piece of head motion."""

_LATENT, _EXPRESSION, _POSE = 64, 64, 6


class Prepared(NamedTuple):
    """A request, ready for the networks.

    Args:
        mel: float32 (frames, 80, 16).
        style: of head motion, 0 to 45.
        seed: of blinks and head motion.
    """

    mel: Floats
    style: int
    seed: int


class SadTalkerEngine(NetworkEngine[FaceMotionRequest, Prepared, Floats]):
    """Runs ExpNet and the decoder of PoseVAE."""

    request_type = FaceMotionRequest
    heavy = True

    def load(self) -> None:
        """Read both networks from the one published file."""
        self.expression, self.pose = needs(self._read, "torch")
        self._most_s = whole_number(self.model, "audio_s", AUDIO_S, _MOST_S)

    def _read(self) -> "tuple[Audio2Exp, Audio2Pose]":
        from serving.backends.ray.engines.networks.checkpoint import read_held
        from serving.backends.ray.engines.networks.sadtalker_audio2exp import load_audio2exp
        from serving.backends.ray.engines.networks.sadtalker_audio2pose import load_audio2pose

        checkpoint = read_held(self.model, self.weights)
        where = self.placement.device, self.placement.dtype
        return load_audio2exp(checkpoint).to(*where), load_audio2pose(checkpoint).to(*where)

    def prepare(self, request: FaceMotionRequest, files: Mapping[str, Path]) -> Prepared:
        """Listen to the sound."""
        samples = read_sound(files["audio"], "audio", SAMPLE_RATE_HZ, least_s=FFT / SAMPLE_RATE_HZ, most_s=self._most_s)
        frames = len(samples) * FPS // SAMPLE_RATE_HZ
        return Prepared(centred_windows(mel_spectrum(samples), frames, FPS), request.pose_style, request.seed)

    def generate(self, batch: Sequence[Prepared], steps: Steps) -> Sequence[Floats]:
        """Coefficients float32 (frames, 70) of each request; a step is a pass of some frames."""
        return [self._motion(prepared, steps) for prepared in batch]

    def write(self, request: FaceMotionRequest, output: Floats, folder: Path) -> Written:
        """Save the coefficients as ``.npy``."""
        path = folder / "coefficients.npy"
        np.save(path, output, allow_pickle=False)
        return Written({"frames": len(output), "fps": FPS}, {"coefficients": (path, "application/octet-stream")})

    def rehearsal(self) -> Prepared:
        """One pass of either network over silence."""
        return Prepared(np.full((_PIECE + 1, 80, 16), -4, np.float32), 0, 0)

    def _motion(self, prepared: Prepared, steps: Steps) -> Floats:
        from serving.backends.ray.engines.networks.finite import check_finite

        frames = len(prepared.mel)
        heard = pieces(prepared.mel[1:], _PIECE) if frames > 1 else np.zeros((0, _PIECE, 80, 16), np.float32)
        passes = -(-frames // FRAMES_AT_ONCE)
        closed, chance = blinks(frames, prepared.seed), latents(len(heard), _LATENT, prepared.seed)
        neutral, ahead = self._tensor(np.zeros(_EXPRESSION, np.float32)), self._tensor(np.zeros(_POSE, np.float32))
        expressions, poses = [], []
        for done in range(passes):
            part = slice(done * FRAMES_AT_ONCE, (done + 1) * FRAMES_AT_ONCE)
            expression = self.expression(self._tensor(prepared.mel[part, None]), neutral, self._tensor(closed[part]))
            expressions.append(check_finite(expression, self.model.name).float().cpu().numpy())
            steps(done + 1, passes + len(heard))
        for done in range(len(heard)):
            part = slice(done, done + 1)
            pose = self.pose(self._tensor(heard[part]), ahead, prepared.style, self._tensor(chance[part]))
            poses.append(check_finite(pose, self.model.name).float().cpu().numpy()[0])
            steps(passes + done + 1, passes + len(heard))
        still = np.zeros((1, _POSE), np.float32)
        moved = np.concatenate((still, joined(np.stack(poses), frames - 1))) if poses else still
        return np.concatenate((np.concatenate(expressions), smoothed(moved)), axis=1)

    def _tensor(self, values: Floats) -> "torch.Tensor":
        import torch

        return torch.from_numpy(np.ascontiguousarray(values)).to(self.placement.device, self.placement.dtype)
