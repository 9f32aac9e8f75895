"""Prompts are read to their last word, or refused with their number of tokens."""

from typing import Any

import pytest

from serving.backends.ray.engines.diffusion.prompts import check_prompt
from serving.backends.ray.tiny.build import tiny_checkpoint
from serving.errors import BadInput


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(tiny_checkpoint("sdxl") / "tokenizer", local_files_only=True)


def test_seventy_five_words_fit_and_one_more_does_not(tokenizer: Any) -> None:
    check_prompt("a " * 75, "prompt", [tokenizer, tokenizer])
    with pytest.raises(
        BadInput, match=r"prompt: the text has 78 tokens, and the model reads 77: shorten it to about 98"
    ):
        check_prompt("a " * 76, "prompt", [tokenizer])


def test_a_pipeline_may_read_less_than_its_tokenizer(tokenizer: Any) -> None:
    check_prompt("a a a", "prompt", [tokenizer], most=5)
    with pytest.raises(BadInput, match="has 6 tokens, and the model reads 5"):
        check_prompt("a a a a", "prompt", [tokenizer], most=5)


def test_an_empty_text_fits(tokenizer: Any) -> None:
    check_prompt("", "negative_prompt", [tokenizer])
