"""Stable Video Diffusion: a still brought to motion; task image_to_video, engine diffusers.

The one invariant: clips are made one at a time, since the decoder looks along time, across the rows of a batch as well.
"""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.backends.ray.engines.diffusion.clips import ClipEngine, still
from serving.backends.ray.engines.diffusion.engine import Asked
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import ImageToVideoRequest

if TYPE_CHECKING:
    from PIL.Image import Image

_DECODED_AT_ONCE = 8


class StableVideoEngine(ClipEngine[ImageToVideoRequest]):
    """``StableVideoDiffusionPipeline``: reads the picture and the rate, and no words: ``prompt`` is left aside.

    The card's ``options``: ``motion_bucket_id`` (127; more is more motion), ``noise_aug_strength`` (0.02; more leaves
    the picture further), ``min_guidance`` of the first frame (1), ``decode_chunk`` (8 frames).
    """

    kind = "StableVideoDiffusionPipeline"
    request_type = ImageToVideoRequest
    usual_steps = 25
    usual_guidance = 3.0

    def load(self) -> None:
        """The pipeline; its UNet halves the sides with every block but the last, and can do so with whole ones only."""
        super().load()
        halvings = len(self.pipeline.unet.config.block_out_channels) - 1
        self.multiple_px = int(self.pipeline.vae_scale_factor * 2**halvings)

    def most_in_batch(self) -> int:
        """One; see the module's invariant."""
        return 1

    def batch_key(self, prepared: Asked[ImageToVideoRequest]) -> Hashable | None:
        """Shares with nobody."""
        return None

    def texts(self, request: ImageToVideoRequest) -> Mapping[str, str]:
        """None is read."""
        return {}

    def pictures(self, request: ImageToVideoRequest, files: Mapping[str, Path]) -> "Mapping[str, Image]":
        """The still."""
        return still(request, files)

    def arguments(self, batch: Sequence[Asked[ImageToVideoRequest]]) -> Mapping[str, Any]:
        """Picture, rate, length, and what the network is told about motion."""
        asked = batch[0].request
        most = self.guidance_of(asked)
        return {
            "image": [one.pictures["image"] for one in batch],
            "num_frames": self.frames_of(asked),
            "fps": asked.fps,
            "motion_bucket_id": int(self.option("motion_bucket_id", 127)),
            "noise_aug_strength": self.option("noise_aug_strength", 0.02),
            "min_guidance_scale": min(most, self.option("min_guidance", 1.0)),
            "max_guidance_scale": most,
            "decode_chunk_size": int(self.option("decode_chunk", _DECODED_AT_ONCE)),
        }

    def smallest(self) -> ImageToVideoRequest:
        """Two frames, one step."""
        grey = ArtifactRef(sha256="0" * 64, size_bytes=0)
        side = max(64, self.multiple_px)
        return ImageToVideoRequest(image=grey, width=side, height=side, duration_s=0.25, fps=8, steps=1)
