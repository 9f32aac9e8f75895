"""Tokens become words, with their punctuation and times."""

from pathlib import Path

import pytest
import tokenizers
from faster_whisper.tokenizer import Tokenizer

from serving.backends.ray.engines.whisper.words import words_of
from tests.servers.tiny import tiny_model


def tokenizer_for(language: str) -> Tokenizer:
    folder = Path(tiny_model("whisper_large_v3").card.source.uri.removeprefix("file:"))
    file = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    return Tokenizer(file, multilingual=True, task="transcribe", language=language)


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("en", " the old keeper", ["the", "old", "keeper"]),
        ("en", " stories, (they say) shorter.", ["stories,", "(they", "say)", "shorter."]),
        ("hi", " नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("zh", "你好。", ["你", "好。"]),
        ("en", "", []),
    ],
    ids=["plain", "punctuation", "several bytes a character", "without spaces", "nothing"],
)
def test_every_character_is_in_one_word(language: str, text: str, words: list[str]) -> None:
    tokenizer = tokenizer_for(language)
    tokens = tokenizer.encode(text)
    found = words_of(tokenizer, tokens, [index / 10 for index in range(len(tokens) + 1)])
    assert [word for word, _, _ in found] == words
    assert all(start <= end for _, start, end in found)
