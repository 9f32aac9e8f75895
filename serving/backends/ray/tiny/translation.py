"""Tiny translators in the formats of Marian, M2M100, NLLB and Seamless; found by the table of makers.

The one invariant: tokenizers are trained and saved as the families have them, with all their languages; only the
networks are small.
"""

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from serving.backends.ray.engines.network.seeds import seeded

if TYPE_CHECKING:
    from torch.nn import Parameter
    from transformers import PretrainedConfig, PreTrainedModel

_TEXT: Final = (
    "the old lighthouse keeper climbed the stairs every evening at sunset",
    "people say that good stories make long winters shorter",
    "we record all of it, a clock, a fridge, a bus far away",
    "हर शाम सूरज ढलने पर बूढ़ा रखवाला सीढ़ियाँ चढ़ता था",
    "लोग कहते हैं कि अच्छी कहानियाँ लंबी सर्दियों को छोटा कर देती हैं",
)
_PIECES: Final = 160
_WIDTH: Final = 16
_POSITIONS: Final = 64
_OPTIONS: Final = {"batch": 4, "beams": 2, "tokens": 16}
_CARD: Final[Mapping[str, object]] = {"limits": {"texts": 100}, "options": _OPTIONS}
_SMALL: Final[Mapping[str, object]] = {
    "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": _POSITIONS,
}  # fmt: skip


def make_marian(folder: Path) -> Mapping[str, object]:
    """As ``Helsinki-NLP/opus-mt-en-hi`` holds it: two sentencepiece models and one vocabulary."""
    from transformers import MarianConfig, MarianMTModel, MarianTokenizer

    pieces = _sentencepiece("unigram")
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes(pieces)
    words = ["</s>", "<unk>", *(piece for piece in _pieces(pieces) if not piece.startswith("<")), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({piece: index for index, piece in enumerate(words)}))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
        files = [str(folder / name) for name in ("source.spm", "target.spm", "vocab.json")]
        MarianTokenizer(*files, source_lang="en", target_lang="hi").save_pretrained(folder)
    padding = len(words) - 1
    config = MarianConfig(
        vocab_size=len(words), d_model=_WIDTH, pad_token_id=padding, eos_token_id=0, forced_eos_token_id=0,
        decoder_start_token_id=padding, static_position_embeddings=True, num_beams=4, **_SMALL,
    )  # fmt: skip
    _save(MarianMTModel, config, folder, bad_words_ids=[[padding]], num_beams=4)
    return {**_CARD, "options": {**_OPTIONS, "source_language": "en", "target_language": "hi"}}


def make_m2m100(folder: Path) -> Mapping[str, object]:
    """As ``facebook/m2m100_418M`` holds it."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration, M2M100Tokenizer

    pieces = _sentencepiece("bpe")
    (folder / "sentencepiece.bpe.model").write_bytes(pieces)
    words = ["<s>", "<pad>", "</s>", "<unk>", *(piece for piece in _pieces(pieces) if not piece.startswith("<"))]
    (folder / "vocab.json").write_text(json.dumps({piece: index for index, piece in enumerate(words)}))
    tokenizer = M2M100Tokenizer(str(folder / "vocab.json"), str(folder / "sentencepiece.bpe.model"))
    tokenizer.save_pretrained(folder)
    size = len(words) + len(tokenizer.lang_code_to_id) + tokenizer.num_madeup_words
    config = M2M100Config(vocab_size=size, d_model=_WIDTH, **_SMALL)
    # "Made-up" words stand for nothing, and a trained network never writes them.
    unsaid = [3, *range(size - tokenizer.num_madeup_words, size)]
    _save(M2M100ForConditionalGeneration, config, folder, len(words), num_beams=5, suppress_tokens=unsaid)
    return dict(_CARD)


def make_nllb(folder: Path) -> Mapping[str, object]:
    """As ``facebook/nllb-200-distilled-600M`` holds it."""
    from transformers import M2M100Config, M2M100ForConditionalGeneration, NllbTokenizer

    vocabulary, merges = _byte_pairs(["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer = NllbTokenizer(vocab=vocabulary, merges=merges)
    tokenizer.save_pretrained(folder)
    config = M2M100Config(vocab_size=len(tokenizer), d_model=_WIDTH, **_SMALL)
    _save(M2M100ForConditionalGeneration, config, folder, len(vocabulary), num_beams=5, suppress_tokens=[3])
    return dict(_CARD)


def make_seamless(folder: Path) -> Mapping[str, object]:
    """As ``facebook/seamless-m4t-v2-large`` holds it, with its speech encoder, units and vocoder."""
    from transformers import SeamlessM4TFeatureExtractor, SeamlessM4TTokenizer, SeamlessM4Tv2Config, SeamlessM4Tv2Model

    vocabulary, merges = _byte_pairs(["<pad>", "<unk>", "<s>", "</s>"])
    codes = ("arb", "ben", "cmn", "cmn_Hant", "deu", "eng", "fra", "hin", "jpn", "por", "spa", "tam", "urd")
    names = [f"__{code}__" for code in codes]
    tokenizer = SeamlessM4TTokenizer(vocab=vocabulary, merges=merges, additional_special_tokens=names)
    tokenizer.save_pretrained(folder)
    SeamlessM4TFeatureExtractor().save_pretrained(folder)
    config = SeamlessM4Tv2Config(
        vocab_size=len(tokenizer), hidden_size=_WIDTH, pad_token_id=0, bos_token_id=2, eos_token_id=3,
        speech_encoder_layers=1, speech_encoder_attention_heads=2, speech_encoder_intermediate_size=32,
        t2u_vocab_size=40, char_vocab_size=40, t2u_encoder_layers=1, t2u_decoder_layers=1,
        t2u_encoder_attention_heads=2, t2u_decoder_attention_heads=2, t2u_encoder_ffn_dim=32, t2u_decoder_ffn_dim=32,
        t2u_variance_predictor_embed_dim=_WIDTH, t2u_variance_predictor_hidden_dim=8, t2u_max_position_embeddings=64,
        unit_hifi_gan_vocab_size=40, unit_embed_dim=8, lang_embed_dim=4, spkr_embed_dim=4, vocoder_num_langs=4,
        vocoder_num_spkrs=2, upsample_initial_channel=32, **_SMALL,
    )  # fmt: skip
    ids = {code: tokenizer.convert_tokens_to_ids(name) for code, name in zip(codes, names, strict=True)}
    told = {"text_decoder_lang_to_code_id": ids, "decoder_start_token_id": 3}
    _save(SeamlessM4Tv2Model, config, folder, len(vocabulary), **told, num_beams=5, suppress_tokens=[1, 2])
    return {"limits": {"texts": 100, "audio": 60}, "options": dict(_OPTIONS)}


def _sentencepiece(kind: str) -> bytes:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_TEXT), model_writer=model, model_type=kind, vocab_size=_PIECES, minloglevel=2,
        hard_vocab_limit=False, num_threads=1,
    )  # fmt: skip
    return model.getvalue()


def _pieces(model: bytes) -> list[str]:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [processor.id_to_piece(index) for index in range(processor.get_piece_size())]


def _byte_pairs(first: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary, after the first tokens, and merges."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE(unk_token="<unk>"))  # noqa: S106  no password
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=_PIECES, special_tokens=first, show_progress=False)
    trained.train_from_iterator(_TEXT, trainer)
    model = json.loads(trained.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]


def _save(
    network: "type[PreTrainedModel]", config: "PretrainedConfig", folder: Path, words: int = 0, **settings: object
) -> None:
    """Make a network of transformers and save it; tokens from ``words`` on, of languages, are faint: rarely written."""
    with seeded(2):
        model = network(config).eval()
        for name, parameter in model.named_parameters():
            _draw(name, parameter)
        if words:
            model.get_input_embeddings().weight.data[words:] *= 0.3
    model.generation_config._from_model_config = False
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(folder)


def _draw(name: str, parameter: "Parameter") -> None:
    """Numbers by which texts vary with what is read and from token to token; plain noise says one token for ever."""
    from torch.nn import init

    if any(part in name for part in ("speech_encoder", "t2u_model", "vocoder", "embed_positions", "norm")):
        return
    if parameter.ndim == 1:
        init.normal_(parameter, std=0.1)
    elif any(part in name for part in ("shared", "embed_tokens", "lm_head")):
        init.normal_(parameter, std=0.5)
    else:
        strong = name.endswith(("out_proj.weight", "fc2.weight"))
        init.normal_(parameter, std=(5.0 if strong else 4.0) / parameter[0].numel() ** 0.5)
