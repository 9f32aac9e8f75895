"""Stable Audio and ACE-Step: music from words, ACE-Step's with singing; task music, engine diffusers.

The one invariant: music is stereo at 48 kHz, of exactly the length asked for, and silent at its end.
"""

import importlib
import warnings
from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from serving.backends.ray.engines.diffusion.engine import AfterStep, Asked, DiffusionEngine
from serving.backends.ray.engines.diffusion.old_norms import old_norms
from serving.backends.ray.engines.diffusion.sounds import at_rate, faded, of_length, stereo, write_wav
from serving.backends.ray.engines.network.engine import Written, needs
from serving.backends.ray.parts.place import keep
from serving.errors import BadInput
from serving.protocol.tasks import MusicRequest

if TYPE_CHECKING:
    import numpy as np
    from diffusers.utils import BaseOutput
    from numpy.typing import NDArray

RATE_HZ: Final = 48_000
MOODS: Final = {
    "calm": "calm instrumental music, slow, soft piano and strings",
    "bright": "bright instrumental music, lively, plucked strings and light percussion",
    "dramatic": "dramatic instrumental film music, low strings and drums",
}
"""What is asked for where a request names a mood alone."""


class MusicEngine(DiffusionEngine[MusicRequest, "NDArray[np.float32]"]):
    """Asks for a length instead of a size, and makes a WAV file of what comes back."""

    request_type = MusicRequest
    output_type: ClassVar[str] = "pt"
    lower: ClassVar[Sequence[str]] = ("duration_s",)

    def load(self) -> None:
        """Load the pipeline; its decoder is of torch's old way, and takes one row at a time.

        Decoding grows with the rows while denoising hardly does. On a CPU core, eight pieces of four steps took
        1.2 times as long as eight single ones with rows decoded together, and 0.6 times with one after the other.
        """
        with old_norms():
            super().load()
        self.pipeline.vae.enable_slicing()

    @abstractmethod
    def rate_hz(self) -> int:
        """Sample rate of the loaded decoder."""

    def prompt(self, request: MusicRequest) -> str:
        """The request's words, or its mood in words."""
        return request.prompt or MOODS[request.mood]

    def texts(self, request: MusicRequest) -> Mapping[str, str]:
        """The prompt alone."""
        return {"prompt": self.prompt(request)}

    def batch_key(self, prepared: Asked[MusicRequest]) -> Hashable | None:
        """Rows of one batch have their length in common, too."""
        return (super().batch_key(prepared), prepared.request.duration_s)

    def results(self, output: "BaseOutput", batch: Sequence[Asked[MusicRequest]]) -> "Sequence[NDArray[np.float32]]":
        """Sound at 48 kHz, of its length to the sample."""
        found = []
        for sound, asked in zip(output.audios, batch, strict=True):
            whole = of_length(
                at_rate(stereo(sound), self.rate_hz(), RATE_HZ), round(asked.request.duration_s * RATE_HZ)
            )
            found.append(faded(whole, RATE_HZ))
        return found

    def write(self, request: MusicRequest, output: "NDArray[np.float32]", folder: Path) -> Written:
        """As WAV."""
        path = write_wav(output, folder / "music.wav", RATE_HZ)
        return Written({"duration_s": len(output) / RATE_HZ}, {"audio": (path, "audio/wav")})

    def smallest(self) -> MusicRequest:
        """One step of half a second."""
        return MusicRequest(duration_s=0.5, steps=1)


class StableAudioEngine(MusicEngine):
    """``StableAudioPipeline``: instrumental; always works on its whole length (47 s) and cuts it."""

    kind = "StableAudioPipeline"
    usual_steps: ClassVar[int] = 100
    usual_guidance: ClassVar[float] = 7.0

    def load(self) -> None:
        """Load the pipeline; its scheduler draws noise with a package of its own."""
        needs(lambda: importlib.import_module("torchsde"), "torchsde")
        super().load()

    def rate_hz(self) -> int:
        """44,100 in the published one."""
        return int(self.pipeline.vae.config.sampling_rate)

    def most_s(self) -> float:
        """Seconds that the network works on."""
        samples = self.pipeline.transformer.config.sample_size * self.pipeline.vae.hop_length
        return float(samples / self.rate_hz())

    def unread(self) -> Mapping[str, str]:
        """Words to be sung."""
        return {"lyrics": "the model does not sing"}

    def check(self, request: MusicRequest) -> None:
        """Refuse more than there is."""
        super().check(request)
        if request.duration_s > self.most_s():
            problem = f"{request.duration_s:g} s, and the model makes at most {self.most_s():.2f}"
            raise BadInput(problem, field="duration_s", fix=f"use at most {int(self.most_s() * 100) / 100:g}")

    def hook(self, after_step: AfterStep) -> Mapping[str, object]:
        """Its hook is of the old kind: after each step, with the step's number."""
        return {"callback": lambda index, time, latents: after_step(self.pipeline, index, time, {})}

    def arguments(self, batch: Sequence[Asked[MusicRequest]]) -> Mapping[str, object]:
        """Prompts, guidance and length."""
        # The scheduler's noise compares rounded numbers with the ends of its range, and corrects them itself.
        warnings.filterwarnings("ignore", message=r"Should have t[ab]", module=r"torchsde\.")
        return {
            "prompt": [self.prompt(asked.request) for asked in batch],
            "guidance_scale": self.guidance_of(batch[0].request),
            "audio_end_in_s": batch[0].request.duration_s,
        }


class AceStepEngine(MusicEngine):
    """``AceStepPipeline``: songs with lyrics, in any length that the card allows; without lyrics, instrumental.

    The card's ``options``: ``prompt_tokens`` (256) and ``lyrics_tokens`` (2048) that the network reads, ``shift`` (3)
    of the steps towards noise.
    """

    kind = "AceStepPipeline"
    usual_steps: ClassVar[int] = 8
    usual_guidance: ClassVar[float] = 7.0

    def load(self) -> None:
        """Load the pipeline; it reads lyrics by the text encoder's table of words alone."""
        super().load()
        keep(self.pipeline.text_encoder.get_input_embeddings())

    def rate_hz(self) -> int:
        """48,000 in all that were published."""
        return int(self.pipeline.sample_rate)

    def unread(self) -> Mapping[str, str]:
        """Guidance, where it was distilled into the weights."""
        return {"guidance": "the model is distilled and takes no guidance"} if self.pipeline.is_turbo else {}

    def guidance_of(self, request: MusicRequest) -> float:
        """None, that is 1, where it was distilled into the weights."""
        return 1.0 if self.pipeline.is_turbo else super().guidance_of(request)

    def texts(self, request: MusicRequest) -> Mapping[str, str]:
        """What the network reads: prompt and lyrics in the forms that it was trained on."""
        prompt, lyrics = self.pipeline._format_prompt(
            prompt=self.prompt(request),
            lyrics=_lyrics(request),
            audio_duration=request.duration_s,
            instruction=self.pipeline._get_task_instruction("text2music"),
        )
        return {"prompt": prompt, "lyrics": lyrics}

    def prepare(self, request: MusicRequest, files: Mapping[str, Path]) -> Asked[MusicRequest]:
        """Count the tokens of both, which have bounds of their own."""
        for name, text in self.texts(request).items():
            self.prompts.check(text, name, self.most_tokens(name))
        return Asked(request)

    def most_tokens(self, field: str) -> int:
        """Of ``prompt`` or ``lyrics``."""
        return int(self.option(f"{field}_tokens", {"prompt": 256, "lyrics": 2048}[field]))

    def batch_key(self, prepared: Asked[MusicRequest]) -> Hashable | None:
        """Rows must have as many tokens, too: the network does not tell padding from words."""
        counts = tuple(sum(self.prompts.count(text)) for text in self.texts(prepared.request).values())
        return (super().batch_key(prepared), counts)

    def arguments(self, batch: Sequence[Asked[MusicRequest]]) -> Mapping[str, object]:
        """Prompts, lyrics, guidance and length."""
        first = batch[0].request
        return {
            "prompt": [self.prompt(asked.request) for asked in batch],
            "lyrics": [_lyrics(asked.request) for asked in batch],
            "guidance_scale": self.guidance_of(first),
            "audio_duration": first.duration_s,
            "max_text_length": self.most_tokens("prompt"),
            "max_lyric_length": self.most_tokens("lyrics"),
            "shift": self.option("shift", 3.0),
        }


def _lyrics(request: MusicRequest) -> str:
    """The request's, or the mark of a piece without any."""
    return request.lyrics or "[Instrumental]"
