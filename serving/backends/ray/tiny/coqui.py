"""Tiny checkpoints of Coqui's voices, VITS and XTTS, as its training writes them; made by tiny.build.

XTTS fixes the sizes of its decoder and its speaker encoder: its checkpoint cannot be under 90 MB. The one invariant: as
in serving.backends.ray.tiny, equal runs write equal numbers.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from serving.backends.ray.engines.coqui.files import coqui, without_spectrograms
from serving.backends.ray.engines.network.checkpoint import quiet
from serving.backends.ray.engines.network.seeds import seeded

if TYPE_CHECKING:
    from torch import nn

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz.,!?'-"
_LANGUAGES: Final = ("en", "es", "fr", "de", "it", "pt", "pl", "tr", "ru", "nl", "cs", "ar", "hu", "hi")
_SPEAKERS: Final = ("Claribel Dervla", "Damien Black")
_VCTK: Final = ("VCTK_p225", "VCTK_p226")
_SPECIAL: Final = ("[STOP]", "[UNK]", "[SPACE]", "[START]", *(f"[{language}]" for language in _LANGUAGES))


def xtts(folder: Path) -> Mapping[str, object]:
    """XTTS v2 with a GPT of one layer, and two speakers."""
    import torch
    from tokenizers import Tokenizer, models

    vocabulary = {token: index for index, token in enumerate((*_SPECIAL, *_LETTERS))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="[UNK]"))  # noqa: S106  a token of text
    tokenizer.add_special_tokens(list(_SPECIAL))
    tokenizer.save(str(folder / "vocab.json"))
    config = coqui("tts.configs.xtts_config").XttsConfig()
    config.model_args = coqui("tts.configs.xtts_config").XttsArgs(
        gpt_layers=1, gpt_n_model_channels=64, gpt_n_heads=2, gpt_max_audio_tokens=8, gpt_max_text_tokens=100,
        gpt_num_audio_tokens=34, gpt_start_audio_token=32, gpt_stop_audio_token=33, decoder_input_dim=64,
        gpt_use_perceiver_resampler=True, gpt_number_text_tokens=len(vocabulary),
        gpt_start_text_token=vocabulary["[START]"], gpt_stop_text_token=vocabulary["[STOP]"],
    )  # fmt: skip
    config.save_json(str(folder / "config.json"))
    with seeded(1), quiet():
        network = coqui("tts.models.xtts").Xtts(config)
        network.gpt.init_gpt_for_inference()
        _draw_zeros(network)
        torch.save({"model": network.state_dict(), "config": {}}, folder / "model.pth")
        speakers = {
            name: {"gpt_cond_latent": torch.randn(1, 32, 64), "speaker_embedding": torch.randn(1, 512, 1)}
            for name in _SPEAKERS
        }
    torch.save(speakers, folder / "speakers_xtts.pth")
    return {
        "limits": {"text": 500},
        "options": {"network": "xtts", "voices_held": 2},
        "languages": list(_LANGUAGES),
    }


def vits(folder: Path) -> Mapping[str, object]:
    """VITS as the model zoo has it for VCTK: phonemes, speakers by name, and a rest of training."""
    import torch

    vits_config = coqui("tts.configs.vits_config")
    arguments = vits_config.VitsArgs(
        hidden_channels=16, hidden_channels_ffn_text_encoder=32, num_layers_text_encoder=1, num_layers_flow=2,
        num_layers_posterior_encoder=1, out_channels=17, upsample_initial_channel_decoder=32,
        use_speaker_embedding=True, speaker_embedding_channels=8, init_discriminator=False,
    )  # fmt: skip
    config = vits_config.VitsConfig(model_args=arguments, phonemizer="espeak", phoneme_language="en")
    speakers = {name: index for index, name in enumerate(_VCTK)}
    (folder / "speaker_ids.json").write_text(json.dumps(speakers), encoding="utf-8")
    with seeded(1):
        characters = coqui("tts.models.vits").VitsCharacters()
        config.characters = characters.to_config()
        config.characters.characters_class = "TTS.tts.models.vits.VitsCharacters"
        config.model_args.num_chars = len(characters.vocab)
        config.use_phonemes, arguments.speakers_file = True, "speaker_ids.json"
        config.save_json(str(folder / "config.json"))
        config.use_phonemes, arguments.speakers_file = False, str(folder / "speaker_ids.json")
        network = coqui("tts.models.vits").Vits(without_spectrograms(config))
        # A frame or two for each symbol, not hundreds.
        network.duration_predictor.flows[0].log_scale.data.fill_(2.0)
        _draw_zeros(network.flow)
    state = {**network.state_dict(), "disc.nets.0.convs.0.bias": torch.zeros(4)}
    torch.save({"model": state, "config": {}, "step": 1}, folder / "model_file.pth")
    return {"limits": {"text": 500}, "options": {"network": "vits"}}


def _draw_zeros(network: "nn.Module") -> None:
    """Numbers for matrices that are zero before training: whatever lies behind one would be equal to anything else."""
    from torch.nn import init

    for parameter in network.parameters():
        if parameter.dim() > 1 and not parameter.any():
            init.normal_(parameter, std=0.1)
