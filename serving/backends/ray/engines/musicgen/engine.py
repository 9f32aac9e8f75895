"""MusicgenEngine: prompts to music by transformers' MusicgenForConditionalGeneration; loaded by Ray replicas.

The one invariant: the length is asked for in seconds and kept to the sample; the network's tokens follow from it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from serving.backends.ray.engines.audio_signal import wav_bytes
from serving.backends.ray.engines.diffusion.prompts import Prompts
from serving.backends.ray.engines.musicgen.sampling import Sampling
from serving.backends.ray.engines.musicgen.sound import RATE_HZ, finished
from serving.backends.ray.engines.network.checkpoint import pretrained, reading
from serving.backends.ray.engines.network.engine import NetworkEngine, Written, needs
from serving.backends.ray.engines.network.steps import Steps
from serving.errors import BadInput, EngineFailed
from serving.protocol.tasks import MusicRequest

if TYPE_CHECKING:
    from transformers import MusicgenForConditionalGeneration

_MOODS: Final = {
    "calm": "calm instrumental music, slow, soft strings and piano",
    "bright": "bright instrumental music, light and cheerful, plucked strings and light percussion",
    "dramatic": "dramatic instrumental film music, dark strings and deep drums",
}
"""What a request without a prompt sounds like."""
_TOP_K: Final = 250
_GUIDANCE: Final = 3.0
"""As the model's authors sample (audiocraft's ``set_generation_params``)."""
_MOST_TOKENS: Final = 512
"""Longest prompt of T5, for tokenizers that do not say."""
_LEAST_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Piece:
    """A request as the network takes it: prompt, frames of the codec, and how it is sampled."""

    prompt: str
    frames: int
    guidance: float
    seed: int


class MusicgenEngine(NetworkEngine[MusicRequest, Piece, NDArray[np.float32]]):
    """Serves ``music``; options: ``batch``, ``top_k`` (250), ``temperature`` (1.0)."""

    request_type = MusicRequest
    lower = ("duration_s",)

    def load(self) -> None:
        """Load tokenizer and network; see the base."""
        transformers = needs(lambda: __import__("transformers"), "transformers")
        folder = self.weights.folder
        self.tokenizer = reading(
            self.model.name, lambda: transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True), folder
        )
        self._prompts = Prompts([self.tokenizer])  # requests are prepared while the network reads another one
        network = transformers.MusicgenForConditionalGeneration
        self.network: MusicgenForConditionalGeneration = pretrained(
            network, self.model, folder, self.placement.device, dtype=self.placement.dtype
        )
        codec = self.network.config.audio_encoder
        self._rate_hz, self._frame_rate = int(codec.sampling_rate), float(codec.frame_rate)
        self._codebooks = int(self.network.decoder.num_codebooks)
        self._top_k = int(str(self.model.card.options.get("top_k", _TOP_K)))
        self._temperature = float(str(self.model.card.options.get("temperature", 1.0)))

    def check(self, request: MusicRequest) -> None:
        """A length that the codec has frames for, and nothing to sing."""
        if request.lyrics:
            raise BadInput("MusicGen sings no words", field="lyrics", fix="leave them out")
        if request.duration_s < _LEAST_S:
            raise BadInput(f"{request.duration_s:g} s is too short", field="duration_s", fix=f"use {_LEAST_S} or more")

    def prepare(self, request: MusicRequest, files: Mapping[str, Path]) -> Piece:
        """Count the prompt's tokens and the codec's frames; see the base."""
        prompt = request.prompt.strip() or _MOODS[request.mood]
        most = min(int(self.tokenizer.model_max_length), _MOST_TOKENS)
        self._prompts.check(prompt, "prompt", most)
        usual = self.network.generation_config.guidance_scale or _GUIDANCE
        guidance = usual if request.guidance is None else request.guidance
        return Piece(prompt, math.ceil(request.duration_s * self._frame_rate), float(guidance), request.seed)

    def batch_key(self, prepared: Piece) -> tuple[int, float]:
        """Equal length and guidance."""
        return prepared.frames, prepared.guidance

    def generate(self, batch: Sequence[Piece], steps: Steps) -> Sequence[NDArray[np.float32]]:
        """Sample the tokens of all requests, step by step, and decode them."""
        first = batch[0]
        # Codebook k is generated k steps late.
        total = first.frames + self._codebooks - 1
        told = self.tokenizer([piece.prompt for piece in batch], padding=True, return_tensors="pt")
        sampling = Sampling(
            [piece.seed for piece in batch],
            guidance=first.guidance,
            top_k=self._top_k,
            temperature=self._temperature,
            model=self.model.name,
            tick=lambda tokens: steps(tokens, total),
        )
        waves = self.network.generate(
            **told.to(self.placement.device),
            do_sample=False,
            guidance_scale=first.guidance if first.guidance > 1 else None,
            max_new_tokens=total,
            logits_processor=[sampling],
        )
        return [self._checked(wave) for wave in waves.float().cpu().numpy()]

    def write(self, request: MusicRequest, output: NDArray[np.float32], folder: Path) -> Written:
        """Stereo 48 kHz 16-bit WAV of exactly the length."""
        path = folder / "music.wav"
        samples = finished(output, self._rate_hz, request.duration_s)
        path.write_bytes(wav_bytes(samples, RATE_HZ))
        return Written({"duration_s": len(samples) / RATE_HZ}, {"audio": (path, "audio/wav")})

    def unload(self) -> None:
        """Let go of the network."""
        del self.network

    def smallest(self) -> MusicRequest:
        """A fifth of a second."""
        return MusicRequest(duration_s=_LEAST_S)

    def _checked(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        """(channels, samples) as the codec makes it, to (samples, channels)."""
        if not wave.size or not np.isfinite(wave).all():
            raise EngineFailed(f"{self.model.name}: the codec made {wave.size} samples that are not sound")
        return np.ascontiguousarray(wave.T)
