"""Tiny ACE-Step 1.5 checkpoints, distilled (turbo) and guided (base); called by `reelmesh models tiny` and by tests.

The one invariant: sound is stereo at 48 kHz in 25 steps a second, as in the published ones; only widths and depths are
smaller.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from serving.backends.ray.engines.diffusion.loading import library
from serving.backends.ray.engines.diffusion.old_norms import old_norms
from serving.backends.ray.engines.network.seeds import seeded
from serving.backends.ray.tiny.oobleck import curved

if TYPE_CHECKING:
    from diffusers import AceStepConditionEncoder
    from transformers import Qwen2Tokenizer, Qwen3Model

_OPTIONS: Final[Mapping[str, int]] = {"batch": 4, "steps": 4, "prompt_tokens": 320, "lyrics_tokens": 512}
CHANGES: Final[Mapping[str, object]] = {
    "limits": {"prompt": 400, "lyrics": 2000, "duration_s": 4, "steps": 50},
    "options": _OPTIONS,
}
_HIDDEN: Final = 32
_LATENT: Final = 8
_SPECIAL: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def make_turbo(folder: Path) -> Mapping[str, object]:
    """Write one whose transformer says that it is distilled, so that it takes no guidance."""
    return _make(folder, 60, turbo=True)


def make_base(folder: Path) -> Mapping[str, object]:
    """Write one that is guided."""
    changes = _make(folder, 61, turbo=False)
    return {**changes, "options": {**_OPTIONS, "guidance": 7.0}}


def _make(folder: Path, seed: int, *, turbo: bool) -> Mapping[str, object]:
    diffusers = library("diffusers")
    with seeded(seed), old_norms():
        vae = diffusers.AutoencoderOobleck(
            encoder_hidden_size=4, downsampling_ratios=[2, 4, 4, 6, 10], channel_multiples=[1, 1, 1, 2, 2],
            decoder_channels=4, decoder_input_channels=_LATENT, sampling_rate=48000,
        )  # fmt: skip
        transformer = diffusers.AceStepTransformer1DModel(
            hidden_size=_HIDDEN, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, in_channels=3 * _LATENT, audio_acoustic_hidden_dim=_LATENT,
            sliding_window=16, is_turbo=turbo, model_version="turbo" if turbo else "base",
        )  # fmt: skip
        pipeline = diffusers.AceStepPipeline(
            vae=curved(vae).eval(), text_encoder=_qwen3(), tokenizer=_tokenizer(), transformer=transformer.eval(),
            condition_encoder=_conditions(),
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0),
        )  # fmt: skip
    pipeline.save_pretrained(folder, safe_serialization=True)
    return CHANGES


def _conditions() -> "AceStepConditionEncoder":
    """The encoder of words, lyrics and timbre, with a recording of silence that is not silent, so that it counts."""
    import torch

    encoder = library("diffusers").AceStepConditionEncoder(
        hidden_size=_HIDDEN, intermediate_size=48, text_hidden_dim=_HIDDEN, timbre_hidden_dim=_LATENT,
        num_lyric_encoder_hidden_layers=1, num_timbre_encoder_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, sliding_window=16,
    )  # fmt: skip
    encoder.silence_latent = torch.randn_like(encoder.silence_latent)
    return encoder.eval()


def _qwen3() -> "Qwen3Model":
    transformers = library("transformers")
    config = transformers.Qwen3Config(
        vocab_size=len(_SPECIAL) + 256, hidden_size=_HIDDEN, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=4096, use_cache=False,
    )  # fmt: skip
    return transformers.Qwen3Model(config).eval()


def _tokenizer() -> "Qwen2Tokenizer":
    """Of bytes alone, with Qwen's special tokens."""
    from tokenizers.pre_tokenizers import ByteLevel

    pieces = [*_SPECIAL, *sorted(ByteLevel.alphabet())]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    return library("transformers").Qwen2Tokenizer(vocab=vocabulary, merges=[], model_max_length=4096)
