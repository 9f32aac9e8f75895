"""LTX-Video and LTX-2: clips from words or from a picture, LTX-2's with sound; engine diffusers.

The one invariant: sound is as long as the clip, to the sample.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from serving.backends.ray.engines.diffusion.clips import Clip, ClipEngine, ClipRequest
from serving.backends.ray.engines.diffusion.engine import Asked
from serving.backends.ray.engines.diffusion.sounds import of_length, stereo
from serving.backends.ray.engines.network.seeds import generator
from serving.backends.ray.parts.place import keep

if TYPE_CHECKING:
    import torch
    from diffusers.models.autoencoders.vae import DecoderOutput
    from diffusers.utils import BaseOutput
    from PIL.Image import Image

    Decoded: TypeAlias = DecoderOutput | tuple[torch.Tensor]


class LtxEngine(ClipEngine):
    """``LTXPipeline``: 8k + 1 frames, sides of multiples of 32 pixels; the network knows the rate it makes them for.

    The card's ``options``: ``decode_timestep`` and ``decode_noise`` for decoders that denoise (0.9.1 and later).
    """

    kind = "LTXPipeline"
    checkpoints: ClassVar[Collection[str]] = ("LTXPipeline", "LTXImageToVideoPipeline", "LTXConditionPipeline")
    multiple_px: ClassVar[int] = 32
    usual_steps: ClassVar[int] = 50
    usual_guidance: ClassVar[float] = 3.0
    usual_frames: ClassVar[int] = 257
    usual_tokens: ClassVar[int] = 128
    least_steps: ClassVar[int] = 2
    """The scheduler stretches its steps to an end of its own, which one alone cannot be."""

    def stride(self) -> int:
        """8 in all that were published."""
        return int(self.pipeline.vae_temporal_compression_ratio)

    def arguments(self, batch: Sequence[Asked[ClipRequest]]) -> Mapping[str, object]:
        """The rate, and how far the decoder denoises, if it does."""
        return {
            **super().arguments(batch),
            "frame_rate": batch[0].request.fps,
            "decode_timestep": self.option("decode_timestep", 0.05),
            "decode_noise_scale": self.option("decode_noise", 0.025),
        }


class LtxPictureEngine(LtxEngine):
    """``LTXImageToVideoPipeline``, from the same checkpoints."""

    kind = "LTXImageToVideoPipeline"
    from_picture: ClassVar[bool] = True

    def load(self) -> None:
        """Load the pipeline; what decoders that denoise take is drawn here, by each row's generator.

        The pipeline draws it by ``torch.randn`` (diffusers 0.42), which takes one generator of the very device.
        """
        super().load()
        vae = self.pipeline.vae
        if vae.config.timestep_conditioning:
            vae.register_to_config(timestep_conditioning=False)  # read by the pipeline alone once it is loaded
            vae.decode = partial(self._denoised, vae.decode)

    def arguments(self, batch: Sequence[Asked[ClipRequest]]) -> Mapping[str, object]:
        """What the decoder's noise comes from is made here, since the pipeline does not pass it on."""
        self._chances = [generator(asked.request.seed) for asked in batch]
        return super().arguments(batch)

    def _denoised(
        self, decode: Callable[..., "Decoded"], latents: "torch.Tensor", _: object = None, **how: object
    ) -> "Decoded":
        import torch
        from diffusers.utils.torch_utils import randn_tensor

        part, when = self.option("decode_noise", 0.025), self.option("decode_timestep", 0.05)
        noise = randn_tensor(latents.shape, generator=self._chances, device=latents.device, dtype=latents.dtype)
        times = torch.full((len(latents),), when, device=latents.device, dtype=latents.dtype)
        return decode((1 - part) * latents + part * noise, times, **how)


class Ltx2Engine(LtxEngine):
    """``LTX2Pipeline``: as LTX-Video, with the sound of the scene; a decoder that mirrors needs sides of 64 pixels.

    The card's ``options``: ``stg_scale`` (0), ``stg_block`` (28), ``modality_scale`` (1) and ``guidance_rescale`` (0)
    steer as LTX-2.3 wants it; without them as LTX-2 does.
    """

    kind = "LTX2Pipeline"
    checkpoints: ClassVar[Collection[str]] = ("LTX2Pipeline", "LTX2ImageToVideoPipeline")
    usual_steps: ClassVar[int] = 40
    usual_guidance: ClassVar[float] = 4.0
    usual_frames: ClassVar[int] = 481
    usual_tokens: ClassVar[int] = 1024

    def load(self) -> None:
        """Load the pipeline; its language model reads once, so that it keeps no keys and values for a next word."""
        super().load()
        keep(self.pipeline.text_encoder.get_input_embeddings())
        self.pipeline.text_encoder.model.language_model.config.use_cache = False

    def least_px(self) -> int:
        """Two latents: one cannot be mirrored."""
        return 2 * self.multiple_px

    def arguments(self, batch: Sequence[Asked[ClipRequest]]) -> Mapping[str, object]:
        """Guidance of picture and sound alike."""
        guidance = self.guidance_of(batch[0].request)
        perturbed = self.option("stg_scale", 0.0)
        steered = {
            "guidance_scale": guidance,
            "stg_scale": perturbed,
            "modality_scale": self.option("modality_scale", 1.0),
            "guidance_rescale": self.option("guidance_rescale", 0.0),
        }
        return {
            **super().arguments(batch),
            **steered,
            **{f"audio_{name}": value for name, value in steered.items()},
            "spatio_temporal_guidance_blocks": [int(self.option("stg_block", 28))] if perturbed else None,
            "use_cross_timestep": bool(self.option("cross_timestep", 0)),
        }

    def results(self, output: "BaseOutput", batch: Sequence[Asked[ClipRequest]]) -> Sequence[Clip]:
        """Clips with their sound; it comes in mel frames of 10 ms and is cut or continued to the clip's length."""
        rate_hz = int(self.pipeline.vocoder.config.output_sampling_rate)
        found = []
        for clip, sound, asked in zip(super().results(output, batch), output.audio, batch, strict=True):
            samples = round(len(clip.frames) * rate_hz / asked.request.fps)
            found.append(Clip(clip.frames, of_length(stereo(sound), samples), rate_hz))
        return found


class Ltx2PictureEngine(Ltx2Engine):
    """``LTX2ImageToVideoPipeline``, from the same checkpoints."""

    kind = "LTX2ImageToVideoPipeline"
    from_picture: ClassVar[bool] = True

    def as_trained(self, picture: "Image") -> "Image":
        """A frame of H.264: the network was trained on those; the pipeline does it for one picture at a time alone."""
        import numpy as np
        from diffusers.pipelines.ltx2.utils import apply_image_conditioning_crf, resolve_default_image_crf
        from PIL import Image

        crf = resolve_default_image_crf(self.pipeline.text_encoder)
        return Image.fromarray(apply_image_conditioning_crf(np.asarray(picture), crf))

    def arguments(self, batch: Sequence[Asked[ClipRequest]]) -> Mapping[str, object]:
        """The pictures are compressed already."""
        return {**super().arguments(batch), "image_crf": 0}
