"""ClipEngine: what engines of pipelines that make clips share, from words or from a picture; families subclass it.

The one invariant: a clip has exactly the frames asked for; the network makes as many as its decoder can, never fewer.
"""

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from serving.backends.ray.engines.diffusion.engine import Asked, DiffusionEngine, negatives, rows
from serving.backends.ray.engines.diffusion.outputs import write_clip
from serving.backends.ray.engines.diffusion.sounds import write_wav
from serving.backends.ray.engines.network.engine import Written
from serving.backends.ray.engines.network.inputs import read_picture
from serving.errors import BadInput
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import ImageToVideoRequest, TextToVideoRequest

if TYPE_CHECKING:
    import numpy as np
    from diffusers.utils import BaseOutput
    from numpy.typing import NDArray
    from PIL.Image import Image

ClipRequest = TextToVideoRequest | ImageToVideoRequest
_NO_PICTURE = ArtifactRef(sha256="0" * 64, media_type="image/png", size_bytes=0)
"""Stands for the grey picture that a model warms up with."""


@dataclass(frozen=True, slots=True)
class Clip:
    """What the network made of one request.

    Attributes:
        frames: uint8 ``(frames, height, width, 3)``.
        sound: float32 ``(samples, channels)``, -1 to 1, as long as the frames; None for silent models.
        rate_hz: of the sound.
    """

    frames: "NDArray[np.uint8]"
    sound: "NDArray[np.float32] | None" = None
    rate_hz: int = 0


def frames_asked(duration_s: float, fps: int) -> int:
    """Frames of a clip, one at least."""
    return max(1, round(duration_s * fps))


def frames_made(asked: int, stride: int) -> int:
    """The least number of frames that a decoder can make and that is not below ``asked``.

    Args:
        asked: frames of the clip, 1 at least.
        stride: frames of one latent; the first latent is one frame.
    """
    return -(-(asked - 1) // stride) * stride + 1


class ClipEngine(DiffusionEngine[ClipRequest, Clip]):
    """Bounds a clip, brings its picture to size and cuts what the network made.

    The card's ``options``, besides those of every pipeline: ``frames``, the longest clip the network makes.

    Attributes:
        from_picture: whether the pipeline brings a picture to motion.
        usual_frames: longest clip where the card says nothing.
        usual_tokens: of a prompt; what the tokenizer's file says, if that is less.
        least_steps: of denoising, that the scheduler can make.
    """

    from_picture: ClassVar[bool] = False
    usual_frames: ClassVar[int]
    usual_tokens: ClassVar[int]
    least_steps: ClassVar[int] = 1
    lower: ClassVar[Sequence[str]] = ("duration_s", "width", "height")

    def __init_subclass__(cls) -> None:
        """The task follows from whether there is a picture."""
        super().__init_subclass__()
        cls.request_type = ImageToVideoRequest if cls.from_picture else TextToVideoRequest

    @abstractmethod
    def stride(self) -> int:
        """Frames of one latent of the loaded decoder."""

    def load(self) -> None:
        """Load the pipeline; its tokenizer, if it has one, is told how much the network reads."""
        super().load()
        for tokenizer in self.tokenizers():
            tokenizer.model_max_length = min(int(tokenizer.model_max_length), self.tokens())

    def tokens(self) -> int:
        """Most tokens of a prompt that the network reads."""
        return self.usual_tokens

    def most_frames(self) -> int:
        """Of the longest clip; the card may allow fewer than the network was trained on, or more."""
        return int(self.option("frames", self.usual_frames))

    def frames_run(self, request: ClipRequest) -> int:
        """Frames that the network makes for a request."""
        return frames_made(frames_asked(request.duration_s, request.fps), self.stride())

    def check(self, request: ClipRequest) -> None:
        """Refuse clips that are too long and steps that are too few, besides sizes and adapters."""
        super().check(request)
        if self.steps_of(request) < self.least_steps:
            raise BadInput("too few steps of denoising", field="steps", fix=f"use at least {self.least_steps}")
        frames, most = frames_asked(request.duration_s, request.fps), self.most_frames()
        if frames > most:
            fix = f"ask for at most {int(1000 * most / request.fps) / 1000:g} s at {request.fps} frames a second"
            problem = f"{frames} frames, and the model makes at most {most}"
            raise BadInput(problem, field="duration_s", fix=fix)

    def pictures(self, request: ClipRequest, files: Mapping[str, Path]) -> "Mapping[str, Image]":
        """The picture, cut to the clip's shape; grey where there is none, for warming up."""
        if not self.from_picture:
            return {}
        from PIL import Image, ImageOps

        size = (request.width, request.height)
        if "image" not in files:
            return {"image": Image.new("RGB", size, (128, 128, 128))}
        picture = self.as_trained(read_picture(files["image"], "image"))
        return {"image": ImageOps.fit(picture, size, Image.Resampling.LANCZOS)}

    def as_trained(self, picture: "Image") -> "Image":
        """A picture as the network knows them, before it is brought to size."""
        return picture

    def batch_key(self, prepared: Asked[ClipRequest]) -> Hashable | None:
        """Rows of one batch have frames and rate in common, too."""
        return (super().batch_key(prepared), self.frames_run(prepared.request), prepared.request.fps)

    def arguments(self, batch: Sequence[Asked[ClipRequest]]) -> Mapping[str, object]:
        """Prompts, pictures, guidance and frames."""
        first = batch[0].request
        told = {
            "prompt": [asked.request.prompt for asked in batch],
            "negative_prompt": negatives(batch),
            "guidance_scale": self.guidance_of(first),
            "num_frames": self.frames_run(first),
            "max_sequence_length": self.pipeline.tokenizer.model_max_length,
        }
        return {**told, "image": [asked.pictures["image"] for asked in batch]} if self.from_picture else told

    def results(self, output: "BaseOutput", batch: Sequence[Asked[ClipRequest]]) -> Sequence[Clip]:
        """The clips, without the frames that nobody asked for."""
        return [
            Clip(frames[: frames_asked(asked.request.duration_s, asked.request.fps)])
            for frames, asked in zip(rows(output.frames), batch, strict=True)
        ]

    def write(self, request: ClipRequest, output: Clip, folder: Path) -> Written:
        """As H.264 in MP4, and the sound as WAV."""
        path = folder / "clip.mp4"
        frames = write_clip(output.frames, path, request.fps)
        files = {"video": (path, "video/mp4")}
        if output.sound is not None:
            files["audio"] = (write_wav(output.sound, folder / "clip.wav", output.rate_hz), "audio/wav")
        return Written({"frames": frames, "fps": request.fps}, files)

    def least_size(self) -> tuple[int, int]:
        """Width and height of the smallest clip."""
        return self.least_px(), self.least_px()

    def smallest(self) -> ClipRequest:
        """As few steps as there can be, of one frame at the least size."""
        width, height = self.least_size()
        told = {"prompt": "a grey wall", "width": width, "height": height, "fps": 8, "duration_s": 0.1}
        told["steps"] = self.least_steps
        return self.request_type.model_validate({**told, "image": _NO_PICTURE} if self.from_picture else told)
