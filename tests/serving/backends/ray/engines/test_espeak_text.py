"""Splitting text for speech: nothing is lost, pauses stand at sentence ends, odd characters are not read out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.backends.ray.engines.espeak_text import (
    MAX_WORD_CHARS,
    PARAGRAPH_PAUSE_S,
    SENTENCE_PAUSE_S,
    clauses,
    said_form,
    words_of,
)
from serving.errors import BadInput


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("Hello there. How are you?", ["Hello there.", "How are you?"], id="two sentences"),
        pytest.param("Dr. Rao met J. Smith.", ["Dr. Rao met J. Smith."], id="abbreviations end nothing"),
        pytest.param("It costs 3.5 euros.", ["It costs 3.5 euros."], id="a decimal point ends nothing"),
        pytest.param("A line\nwrapped.", ["A line wrapped."], id="a wrapped line goes on"),
        pytest.param("One.\n\nTwo.", ["One.", "Two."], id="paragraphs"),
        pytest.param("यह अच्छा है। वह भी।", ["यह अच्छा है।", "वह भी।"], id="danda"),
        pytest.param("“Quiet,” he said — and left.", ["Quiet, he said, and left."], id="quotes and dashes"),
        pytest.param("*Bold* and `code` 🎉 here", ["Bold and code here"], id="markup and emoji"),
    ],
)
def test_a_text_is_said_sentence_by_sentence(text: str, said: list[str]) -> None:
    assert [clause.said for clause in clauses(text)] == said


def test_pauses_follow_sentences_and_paragraphs_but_not_the_end() -> None:
    pauses = [clause.pause_s for clause in clauses("One. Two.\n\nThree.")]
    assert pauses == [SENTENCE_PAUSE_S, PARAGRAPH_PAUSE_S, 0.0]


def test_a_long_sentence_is_cut_at_a_comma() -> None:
    sentence = "and so the river went on and on through the hills, " * 12
    parts = clauses(sentence)
    assert len(parts) > 1
    assert all(clause.said.endswith(",") for clause in parts)
    assert max(len(clause.said) for clause in parts) < 400


def test_punctuation_that_stands_alone_joins_the_word_before_it() -> None:
    assert [written for written, _ in words_of("— Wait — what ?!")] == ["— Wait —", "what ?!"]


def test_words_stand_where_the_clause_says() -> None:
    clause = clauses("“Quiet,” he said — and/or left.")[0]
    assert [word.text for word in clause.words] == ["“Quiet,”", "he", "said —", "and/or", "left."]
    assert [clause.said[word.first : word.last] for word in clause.words] == [
        "Quiet,",
        "he",
        "said,",
        "and or",
        "left.",
    ]


@pytest.mark.parametrize("text", ["...", "🎉 🎊", " \n\t ", "—"], ids=["dots", "emoji", "space", "dash"])
def test_a_text_without_anything_to_say_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="text"):
        clauses(text)


def test_a_word_without_end_is_refused_with_its_length() -> None:
    with pytest.raises(BadInput, match=str(MAX_WORD_CHARS + 1)):
        clauses("a" * (MAX_WORD_CHARS + 1))


def test_control_characters_and_markup_never_reach_espeak() -> None:
    assert said_form("<break\x00time='5s'/>") == "break time='5s'"
    assert said_form("[[h@l'oU]]") == "h@l'oU"


@given(st.text(max_size=300))
def test_no_word_of_any_text_is_lost_or_changed(text: str) -> None:
    try:
        parts = clauses(text)
    except BadInput:
        return
    written = " ".join(word.text for clause in parts for word in clause.words)
    assert [token for token in text.split() if any(map(str.isalnum, said_form(token)))] == [
        token for token in written.split() if any(map(str.isalnum, said_form(token)))
    ]
