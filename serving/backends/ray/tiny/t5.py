"""A tiny T5 encoder and its tokenizer, as CogVideoX, LTX-Video and Stable Audio carry them; used by their makers.

The one invariant: the tokenizer's folder holds what the published ones hold, ``spiece.model`` and its settings.
"""

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from serving.backends.ray.engines.diffusion.loading import library

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from transformers import T5EncoderModel, T5Tokenizer

HIDDEN: Final = 32
"""Width of the encoder's output."""
_VOCABULARY: Final = 120
_SENTENCES: Final = (
    "a red fox runs through the snow at night while the wind moves the trees",
    "two people talk in a quiet studio and one of them laughs",
    "the camera moves slowly over a calm sea under a golden sky",
    "a warm piano plays a slow melody over soft strings and brushed drums",
    "bright lights of the city, rain on the window, neon, fog and steam",
    "close up of a hand that draws a small blue bird on white paper",
    "low quality, blurry, distorted, worst, jittery, inconsistent motion",
    "The Quick Brown Fox Jumps Over A Lazy Dog. 0 1 2 3 4 5 6 7 8 9 ! ? : ; - ( )",
)


def tokenizer(folder: Path, most_tokens: int) -> "T5Tokenizer":
    """Train and write a tokenizer, and load it from what was written.

    Args:
        folder: created.
        most_tokens: its ``model_max_length``.
    """
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_SENTENCES), model_writer=model, vocab_size=_VOCABULARY, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, num_threads=1, minloglevel=2,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(model.getvalue())
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    settings = {**special, "extra_ids": 4, "model_max_length": most_tokens, "tokenizer_class": "T5Tokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2), encoding="utf-8")
    return library("transformers").T5Tokenizer.from_pretrained(folder, local_files_only=True)


def encoder() -> "T5EncoderModel":
    """An encoder of two layers with random weights."""
    transformers = library("transformers")
    config = transformers.T5Config(
        vocab_size=_VOCABULARY + 8, d_model=HIDDEN, d_kv=8, d_ff=37, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False,
    )  # fmt: skip
    return transformers.T5EncoderModel(config).eval()


def save_beside(pipeline: "DiffusionPipeline", folder: Path) -> None:
    """Write a pipeline into the folder, all but its tokenizer, whose files are there already in the published form."""
    tokenizer = folder / "tokenizer"
    kept = {path.name: path.read_bytes() for path in tokenizer.iterdir()}
    pipeline.save_pretrained(folder, safe_serialization=True)
    for path in tokenizer.iterdir():
        path.unlink()
    for name, content in kept.items():
        (tokenizer / name).write_bytes(content)
