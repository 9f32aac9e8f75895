"""Texts in pieces for XTTS."""

import pytest

from serving.backends.ray.engines.coqui.sentences import sentences
from serving.errors import BadInput


def test_a_text_is_split_at_its_sentences_which_pauses_follow() -> None:
    parts = sentences("Hello there. How are you?\n\nNew paragraph!", 250)
    assert [part.text for part in parts] == ["Hello there.", "How are you?", "New paragraph!"]
    assert parts[0].pause_s < parts[1].pause_s
    assert parts[2].pause_s == 0


def test_a_long_sentence_is_split_between_words_and_loses_none() -> None:
    text = "word-like tokens and " * 40
    parts = sentences(text, 71)
    assert max(len(part.text) for part in parts) <= 71
    assert " ".join(part.text for part in parts).split() == text.split()


def test_a_text_without_words_is_refused() -> None:
    with pytest.raises(BadInput):
        sentences("...", 250)
