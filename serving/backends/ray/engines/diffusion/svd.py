"""Stable Video Diffusion: a still brought to motion; task image_to_video, engine diffusers.

The one invariant: clips are made one at a time, since the decoder looks along time, across the rows of a batch as well.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import ClassVar

from serving.backends.ray.engines.diffusion.clips import ClipEngine, ClipRequest
from serving.backends.ray.engines.diffusion.engine import Asked

_DECODED_AT_ONCE = 8


class StableVideoEngine(ClipEngine):
    """``StableVideoDiffusionPipeline``: reads the picture and the rate, and no words.

    The card's ``options``: ``motion_bucket_id`` (127; more is more motion), ``noise_aug_strength`` (0.02; more leaves
    the picture further), ``min_guidance`` of the first frame (1), ``decode_chunk`` (8 frames).
    """

    kind = "StableVideoDiffusionPipeline"
    from_picture: ClassVar[bool] = True
    usual_steps: ClassVar[int] = 25
    usual_guidance: ClassVar[float] = 3.0
    usual_frames: ClassVar[int] = 25
    usual_tokens: ClassVar[int] = 0

    def stride(self) -> int:
        """Every frame has a latent."""
        return 1

    def multiple(self) -> int:
        """The UNet halves the sides with every block but the last, and takes whole ones only."""
        return int(self.pipeline.vae_scale_factor * 2 ** (len(self.pipeline.unet.config.block_out_channels) - 1))

    def most_in_batch(self) -> int:
        """One; see the module's invariant."""
        return 1

    def batch_key(self, prepared: Asked[ClipRequest]) -> Hashable | None:
        """Shares with nobody."""
        return None

    def unread(self) -> Mapping[str, str]:
        """Words."""
        return dict.fromkeys(("prompt", "negative_prompt"), "the model reads no words")

    def arguments(self, batch: Sequence[Asked[ClipRequest]]) -> Mapping[str, object]:
        """Picture, rate, length, and what the network is told about motion."""
        asked = batch[0].request
        frames, most = self.frames_run(asked), self.guidance_of(asked)
        return {
            "image": [one.pictures["image"] for one in batch],
            "num_frames": frames,
            "fps": asked.fps,
            "motion_bucket_id": int(self.option("motion_bucket_id", 127)),
            "noise_aug_strength": self.option("noise_aug_strength", 0.02),
            # Of one frame the pipeline takes the least guidance for all, and then trips over its own batch.
            "min_guidance_scale": most if frames == 1 else min(most, self.option("min_guidance", 1.0)),
            "max_guidance_scale": most,
            "decode_chunk_size": int(self.option("decode_chunk", _DECODED_AT_ONCE)),
        }
