"""Tiny checkpoints of neural voices and of music by tokens, as transformers writes them; made by tiny.build.

The one invariant: as in serving.backends.ray.tiny, equal runs write equal bytes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from serving.backends.ray.engines.network.seeds import seeded

_ENGLISH: Final = "k'zyudhesw–3cp-1jmi flo0bra42n_xvtq56g"
"""The published vocabulary's characters; the first is also the blank."""
_HINDI: Final = " -" + "".join(map(chr, [*range(0x0901, 0x093A), *range(0x093C, 0x094E)]))


def mms_english(folder: Path) -> Mapping[str, object]:
    """MMS-TTS for English: letters of the published vocabulary's kind."""
    return _mms(folder, _ENGLISH, "eng")


def mms_hindi(folder: Path) -> Mapping[str, object]:
    """MMS-TTS for Hindi: Devanagari."""
    return _mms(folder, _HINDI, "hin")


def _mms(folder: Path, characters: str, language: str) -> Mapping[str, object]:
    import torch
    from transformers import VitsConfig, VitsModel

    vocabulary = {character: index for index, character in enumerate(characters)}
    config = VitsConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, ffn_dim=32, flow_size=16, spectrogram_bins=17,
        upsample_initial_channel=32, duration_predictor_filter_channels=16, prior_encoder_num_flows=2,
        prior_encoder_num_wavenet_layers=2, posterior_encoder_num_wavenet_layers=2, sampling_rate=16000,
    )  # fmt: skip
    with seeded(1), torch.no_grad():
        network = VitsModel(config)
        # A frame or two for each symbol, not hundreds.
        network.get_parameter("duration_predictor.flows.0.log_scale").fill_(2.0)
        network.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    settings = {
        "add_blank": True, "is_uroman": False, "language": language, "normalize": True, "pad_token": characters[0],
        "phonemize": False, "tokenizer_class": "VitsTokenizer", "unk_token": "<unk>",
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return {"limits": {"text": 500}, "options": {"batch": 8}}
