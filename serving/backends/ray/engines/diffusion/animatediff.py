"""AnimateDiff: clips from words, by Stable Diffusion 1.5 and a motion module; task text_to_video, engine diffusers.

The one invariant: every frame is denoised with the others, so no clip is longer than the motion module reaches.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from serving.backends.ray.engines.diffusion.clips import ClipEngine, ClipRequest
from serving.backends.ray.engines.diffusion.engine import Asked, negatives
from serving.backends.ray.engines.diffusion.loading import library

_LEAST_PX = 64
_DECODED_AT_ONCE = 8


class AnimateDiffEngine(ClipEngine):
    """``AnimateDiffPipeline``: the card's source is a Stable Diffusion 1.5, its part ``motion_adapter`` the module.

    The card's ``options.decode_chunk``: frames decoded at once (8).
    """

    kind = "AnimateDiffPipeline"
    checkpoints = ("StableDiffusionPipeline", "AnimateDiffPipeline")
    usual_steps: ClassVar[int] = 25
    usual_guidance: ClassVar[float] = 7.5
    usual_frames: ClassVar[int] = 16
    usual_tokens: ClassVar[int] = 77

    def load(self) -> None:
        """The pipeline, with the schedule that motion modules were trained on (diffusers' page on AnimateDiff)."""
        super().load()
        schedule = {"beta_schedule": "linear", "timestep_spacing": "linspace", "steps_offset": 1, "clip_sample": False}
        kind = library("diffusers").DDIMScheduler
        self.pipeline.scheduler = kind.from_config(self.pipeline.scheduler.config, **schedule)
        self.pipeline.unet.eval()  # the pipeline makes it of two, and leaves it as if it were trained

    def stride(self) -> int:
        """The decoder makes pictures, one of each latent."""
        return 1

    def most_frames(self) -> int:
        """What the card says, and what the motion module's positions reach."""
        return min(super().most_frames(), int(self.pipeline.unet.config.motion_max_seq_length))

    def least_px(self) -> int:
        """A latent of 8 by 8."""
        return _LEAST_PX

    def arguments(self, batch: Sequence[Asked[ClipRequest]]) -> Mapping[str, object]:
        """Prompts, guidance and length."""
        return {
            "prompt": [asked.request.prompt for asked in batch],
            "negative_prompt": negatives(batch),
            "guidance_scale": self.guidance_of(batch[0].request),
            "num_frames": self.frames_run(batch[0].request),
            "decode_chunk_size": int(self.option("decode_chunk", _DECODED_AT_ONCE)),
        }
