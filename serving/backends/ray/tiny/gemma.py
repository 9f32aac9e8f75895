"""A tiny Gemma 3 and its tokenizer, as LTX-2 carries them; used by its maker.

The one invariant: the tokenizer cuts nothing itself and falls back to bytes, as the published one does.
"""

from typing import TYPE_CHECKING, Final

from serving.backends.ray.engines.diffusion.loading import library

if TYPE_CHECKING:
    from transformers import Gemma3ForConditionalGeneration, GemmaTokenizer

HIDDEN: Final = 32
"""Width of its hidden states."""
LAYERS: Final = 2
"""Each gives hidden states, and the embedding does."""
_SPECIAL: Final = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_image>", "<end_of_image>", "<image>")
_CHARACTERS: Final = "▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?'()-"


def gemma_tokenizer(most_tokens: int) -> "GemmaTokenizer":
    """A tokenizer of single characters and bytes; pads on the left.

    Args:
        most_tokens: its ``model_max_length``.
    """
    pieces = [*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *_CHARACTERS]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    return library("transformers").GemmaTokenizer(
        vocab=vocabulary, merges=[], model_max_length=most_tokens, padding_side="left"
    )


def gemma3() -> "Gemma3ForConditionalGeneration":
    """A model of two layers with random weights; its eye is there, and as small as it gets."""
    transformers = library("transformers")
    text: dict[str, object] = {
        "vocab_size": len(_SPECIAL) + 256 + len(_CHARACTERS), "hidden_size": HIDDEN, "intermediate_size": 48,
        "num_hidden_layers": LAYERS, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
        "query_pre_attn_scalar": 16, "sliding_window": 16, "max_position_embeddings": 2048, "use_cache": False,
    }  # fmt: skip
    vision = {
        "model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    indexes = {name: _SPECIAL.index(token) for name, token in _INDEXES.items()}
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, **indexes)
    return transformers.Gemma3ForConditionalGeneration(config).eval()


_INDEXES: Final = {
    "boi_token_index": "<start_of_image>",
    "eoi_token_index": "<end_of_image>",
    "image_token_index": "<image>",
}
