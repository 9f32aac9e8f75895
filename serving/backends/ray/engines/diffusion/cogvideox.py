"""CogVideoX: clips from words or from a picture; tasks text_to_video and image_to_video, engine diffusers.

The one invariant: what the checkpoint's configuration fixes (tokens, and sizes and length where positions were learned)
is read from it, not assumed.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from serving.backends.ray.engines.diffusion.clips import ClipEngine, ClipRequest
from serving.backends.ray.engines.diffusion.engine import Asked
from serving.errors import BadInput

if TYPE_CHECKING:
    import torch
    from torch import nn


class CogVideoXEngine(ClipEngine):
    """``CogVideoXPipeline``: 4k + 1 frames, sides of multiples of 16 pixels, made for 720x480 at 8 frames a second."""

    kind = "CogVideoXPipeline"
    multiple_px: ClassVar[int] = 16
    usual_steps: ClassVar[int] = 50
    usual_guidance: ClassVar[float] = 6.0
    usual_frames: ClassVar[int] = 49
    usual_tokens: ClassVar[int] = 226

    def load(self) -> None:
        """Load the pipeline; convolutions that see one frame at a time keep none for the next frames.

        The decoder hands them on with the others' (diffusers 0.42), where nobody reads them: at 720x480, 49 frames and
        in half precision that is 88 MB for each of the last blocks.
        """
        super().load()
        for module in self.pipeline.vae.decoder.modules():
            if getattr(module, "time_kernel_size", None) == 1:
                module.register_forward_hook(_keeps_nothing)

    def stride(self) -> int:
        """4 in all that were published."""
        return int(self.pipeline.vae_scale_factor_temporal)

    def tokens(self) -> int:
        """Words and positions share one sequence, so this is part of the weights."""
        return int(self.pipeline.transformer.config.max_text_seq_length)

    def arguments(self, batch: Sequence[Asked[ClipRequest]]) -> Mapping[str, object]:
        """Guidance grows with the steps under the DPM scheduler, as its authors run it."""
        dynamic = "DPM" in type(self.pipeline.scheduler).__name__
        return {**super().arguments(batch), "use_dynamic_cfg": dynamic}


class CogVideoXPictureEngine(CogVideoXEngine):
    """``CogVideoXImageToVideoPipeline``; with learned positions (5b-I2V) it makes one size and one length alone."""

    kind = "CogVideoXImageToVideoPipeline"
    from_picture: ClassVar[bool] = True

    def fixed_size(self) -> tuple[int, int] | None:
        """Width and height of every clip, where positions were learned."""
        config = self.pipeline.transformer.config
        if not config.use_learned_positional_embeddings:
            return None
        scale = self.pipeline.vae_scale_factor_spatial
        return config.sample_width * scale, config.sample_height * scale

    def check(self, request: ClipRequest) -> None:
        """Refuse every size but the learned one."""
        super().check(request)
        fixed = self.fixed_size()
        if fixed is not None and (request.width, request.height) != fixed:
            field = "width" if request.width != fixed[0] else "height"
            problem = f"the model makes {fixed[0]}x{fixed[1]} pixels alone, not {request.width}x{request.height}"
            raise BadInput(problem, field=field, fix=f"use width {fixed[0]} and height {fixed[1]}")

    def frames_run(self, request: ClipRequest) -> int:
        """All that positions were learned for: what is not asked for is cut."""
        if self.fixed_size() is None:
            return super().frames_run(request)
        return int(self.pipeline.transformer.config.sample_frames)

    def most_frames(self) -> int:
        """Never more than positions were learned for."""
        most = super().most_frames()
        return most if self.fixed_size() is None else min(most, int(self.pipeline.transformer.config.sample_frames))

    def least_size(self) -> tuple[int, int]:
        """The learned one, if there is one."""
        return self.fixed_size() or super().least_size()


def _keeps_nothing(module: "nn.Module", asked: object, answer: "tuple[torch.Tensor, object]") -> object:
    return answer[0], None
