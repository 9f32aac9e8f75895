"""Tiny Whispers: transformers' format and CTranslate2's of one random network; found by the table of makers.

The one invariant: vocabulary, special tokens, mel bands and window are large-v3's layout, so that no code path of the
real model is missed; only the sizes are small.
"""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from serving.backends.ray.engines.network.seeds import seeded
from serving.backends.ray.engines.whisper.languages import WHISPER_LANGUAGES

if TYPE_CHECKING:
    from torch.nn import Parameter
    from transformers import WhisperForConditionalGeneration

_TEXT: Final = (
    "the old lighthouse keeper climbed the stairs every evening at sunset",
    "people say that good stories make long winters shorter",
    "we record all of it, a clock, a fridge, a bus far away",
)
_VOCABULARY: Final = 300
_TIMES: Final = 1501
"""Time tokens from 0.00 to 30.00 s."""
_WIDTH: Final = 16
_WORDS: Final = 40
_TASKS: Final = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
"""Special tokens after the languages, in large-v3's order."""
_CARD: Final[Mapping[str, object]] = {"limits": {"audio": 120}, "options": {"batch": 3, "beams": 1, "tokens": 24}}


def make_transformers(folder: Path) -> Mapping[str, object]:
    """As ``openai/whisper-large-v3`` holds it: safetensors, tokenizer, preprocessor and generation settings."""
    _save(folder)
    return dict(_CARD)


def make_ctranslate2(folder: Path) -> Mapping[str, object]:
    """As ``Systran/faster-whisper-large-v3`` holds it: ``model.bin``, ``vocabulary.json`` and the tokenizer."""
    from ctranslate2.converters import TransformersConverter

    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "transformers"
        source.mkdir()
        _save(source)
        copied = ["tokenizer.json", "preprocessor_config.json"]
        converter = TransformersConverter(str(source), copy_files=copied)
        converter.convert(str(folder), force=True)
    return dict(_CARD)


def _save(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import WhisperFeatureExtractor, WhisperTokenizer

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    # CTranslate2 takes a vocabulary with an empty token for a multilingual one.
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY - 1, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    trained.train_from_iterator(_TEXT, trainer)
    vocabulary = trained.get_vocab() | {"": trained.get_vocab_size()}
    merges = [tuple(pair) for pair in _merges(trained.to_str())]
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=merges)
    tokenizer.add_special_tokens({"additional_special_tokens": list(_specials())})
    tokenizer.add_tokens([f"<|{index * 0.02:.2f}|>" for index in range(_TIMES)])
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=128).save_pretrained(folder)
    # What is no printable ASCII is never said: random bytes would rarely make a character.
    unsaid = [index for index in range(_VOCABULARY) if not tokenizer.decode([index]).strip().isalnum()]
    model = _model(tokenizer.get_vocab(), unsaid)
    model.save_pretrained(folder)


def _merges(tokenizer_json: str) -> list[list[str]]:
    import json

    found: list[list[str]] = json.loads(tokenizer_json)["model"]["merges"]
    return found


def _specials() -> Iterator[str]:
    yield "<|startoftranscript|>"
    yield from (f"<|{code}|>" for code in WHISPER_LANGUAGES)
    yield from (f"<|{name}|>" for name in _TASKS)


def _model(ids: Mapping[str, int], unsaid: list[int]) -> "WhisperForConditionalGeneration":
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    end = ids["<|endoftext|>"]
    config = WhisperConfig(
        vocab_size=len(ids), num_mel_bins=128, d_model=_WIDTH, encoder_layers=1, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
        decoder_start_token_id=ids["<|startoftranscript|>"], pad_token_id=end, bos_token_id=end, eos_token_id=end,
    )  # fmt: skip
    with seeded(1):
        model = WhisperForConditionalGeneration(config)
        model.eval()
        for name, parameter in model.named_parameters():
            _draw(name, parameter)
    settings = model.generation_config
    settings._from_model_config = False
    for name, value in {
        "is_multilingual": True,
        "lang_to_id": {f"<|{code}|>": ids[f"<|{code}|>"] for code in WHISPER_LANGUAGES},
        "task_to_id": {name: ids[f"<|{name}|>"] for name in ("transcribe", "translate")},
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "alignment_heads": [[1, 0], [1, 1]],
        "suppress_tokens": [*unsaid, *sorted(ids[f"<|{name}|>"] for name in (*_TASKS[:5], "startoftranscript"))],
        "begin_suppress_tokens": [end],
        "max_initial_timestamp_index": 50,
        "max_length": 448,
        "return_timestamps": False,
    }.items():
        setattr(settings, name, value)
    return model


def _draw(name: str, parameter: "Parameter") -> None:
    """Numbers by which texts vary with the sound and from token to token; plain noise says one token for ever."""
    from torch.nn import init

    if "layer_norm" in name:
        init.constant_(parameter, 1.0 if name.endswith("weight") else 0.0)
    elif "decoder.embed_positions" in name:
        init.normal_(parameter, std=3.0)
    elif "embed_tokens" in name:
        init.normal_(parameter, std=0.5)
    elif parameter.ndim == 1:
        init.normal_(parameter, std=0.1)
    elif "embed_positions" not in name:
        strong = name.endswith(("out_proj.weight", "fc2.weight"))
        init.normal_(parameter, std=(5.0 if strong else 1.5) / parameter[0].numel() ** 0.5)
