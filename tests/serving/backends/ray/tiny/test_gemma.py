"""The tiny Gemma's tokenizer reads everything and cuts nothing."""

from serving.backends.ray.tiny.gemma import gemma_tokenizer


def test_every_text_comes_back_whole() -> None:
    tokenizer = gemma_tokenizer(8)
    for text in ("a red fox", "Füchse, 狐 🦊", "x" * 100):
        tokens = tokenizer(text, verbose=False).input_ids
        assert tokenizer.decode(tokens, skip_special_tokens=True) == text
    assert tokenizer.model_max_length == 8
    assert tokenizer.padding_side == "left"
