"""Prompts are read to their last word, or refused with their number of tokens."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from serving.backends.ray.engines.diffusion.prompts import Prompts
from serving.backends.ray.tiny.build import tiny_checkpoint
from serving.errors import BadInput


@pytest.fixture
def tokenizer() -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(tiny_checkpoint("sdxl") / "tokenizer", local_files_only=True)


def test_seventy_five_words_fit_and_one_more_does_not(tokenizer: Any) -> None:
    Prompts([tokenizer, tokenizer]).check("a " * 75, "prompt")
    with pytest.raises(
        BadInput, match=r"prompt: the text has 78 tokens, and the model reads 77: shorten it to about 98"
    ):
        Prompts([tokenizer]).check("a " * 76, "prompt")


def test_a_pipeline_may_read_less_than_its_tokenizer(tokenizer: Any) -> None:
    Prompts([tokenizer]).check("a a a", "prompt", most=5)
    with pytest.raises(BadInput, match="has 6 tokens, and the model reads 5"):
        Prompts([tokenizer]).check("a a a a", "prompt", most=5)


def test_an_empty_text_fits(tokenizer: Any) -> None:
    Prompts([tokenizer]).check("", "negative_prompt")


def test_the_bound_is_that_of_the_pipelines_tokenizer_as_it_is_now(tokenizer: Any) -> None:
    prompts = Prompts([tokenizer])
    tokenizer.model_max_length = 5
    with pytest.raises(BadInput, match="has 6 tokens, and the model reads 5"):
        prompts.check("a a a a", "prompt")


def test_counting_disturbs_no_pass_that_reads_a_prompt_meanwhile(tokenizer: Any) -> None:
    """Tokenizers keep their truncation between calls: shared by two threads, they give 122 tokens for 77."""
    prompts, long, most = Prompts([tokenizer]), "a " * 120, 500

    def count() -> None:
        for _ in range(300):
            prompts.check(long, "prompt", most)

    def read() -> set[int]:
        kept = {"truncation": True, "max_length": 77, "padding": "max_length"}
        return {len(tokenizer(long, **kept).input_ids) for _ in range(300)}

    with ThreadPoolExecutor(3) as threads:
        counting = [threads.submit(count) for _ in range(2)]
        assert threads.submit(read).result() == {77}
        for one in counting:
            one.result()
