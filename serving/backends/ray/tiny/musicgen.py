"""A tiny MusicGen checkpoint, as transformers writes it: T5, a decoder of two layers, EnCodec; made by tiny.build.

The one invariant: as in serving.backends.ray.tiny, equal runs write equal bytes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from serving.backends.ray.engines.network.seeds import seeded

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,'-"
_CODES: Final = 2048
"""As published: what sampling costs depends on it."""
_MOST_TOKENS: Final = 64


def musicgen(folder: Path) -> Mapping[str, object]:
    """The published layout: 4 codebooks, 50 frames a second, 32 kHz; the prompt is read letter by letter."""
    from transformers import (
        EncodecConfig,
        EncodecFeatureExtractor,
        MusicgenConfig,
        MusicgenDecoderConfig,
        MusicgenForConditionalGeneration,
        T5Config,
        T5Tokenizer,
    )

    scores = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in _LETTERS)]
    T5Tokenizer(vocab=scores, extra_ids=0, model_max_length=_MOST_TOKENS).save_pretrained(folder)
    text = T5Config(vocab_size=len(scores), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    codec = EncodecConfig(
        sampling_rate=32_000, target_bandwidths=[2.2], audio_channels=1, upsampling_ratios=[8, 5, 4, 4],
        codebook_size=_CODES, hidden_size=8, codebook_dim=8, num_filters=2, num_lstm_layers=1, use_causal_conv=False,
    )  # fmt: skip
    decoder = MusicgenDecoderConfig(
        vocab_size=_CODES, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, ffn_dim=32, num_codebooks=4,
        pad_token_id=_CODES, bos_token_id=_CODES,
    )  # fmt: skip
    with seeded(1):
        network = MusicgenForConditionalGeneration(
            MusicgenConfig(text_encoder=text.to_dict(), audio_encoder=codec.to_dict(), decoder=decoder.to_dict())
        )
        for name, buffer in network.audio_encoder.named_buffers():
            if name.endswith("codebook.embed"):  # zeros, before training
                buffer.normal_()
    settings = network.generation_config
    settings.decoder_start_token_id = settings.pad_token_id = settings.bos_token_id = _CODES
    settings.do_sample, settings.guidance_scale, settings.max_length = True, 3.0, 1500
    network.save_pretrained(folder)
    EncodecFeatureExtractor(sampling_rate=32_000).save_pretrained(folder)
    return {"limits": {"duration_s": 2, "prompt": 500}, "options": {"batch": 4}}
