"""Captions: the usual rules hold for any words, and good breaks are found for real sentences."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.media.caption_text import break_cost, clean, text_columns
from serving.media.captions import CaptionRules, Cue, SpokenWord, build_cues, spoken_words
from serving.protocol.tasks import Word

RULES = CaptionRules()

SCRIPTS = st.sampled_from(
    [
        "abc DEF",
        "नमस्ते दुनिया",
        "你好世界再见",
        "こんにちは",
        "สวัสดี",
        "مرحبا",
        "{\\an8}",
        "-->",
        "<i>",
        "a\nb",
        "👩‍🚀é",
        ",",
    ]
)
TEXTS = st.one_of(st.text(max_size=60), SCRIPTS, st.text(alphabet="abcdefgh.,", min_size=1, max_size=12))


@st.composite
def timed_words(draw: st.DrawFn) -> list[SpokenWord]:
    clock, words = 0.0, []
    for text in draw(st.lists(TEXTS, max_size=40)):
        clock += draw(st.sampled_from([0.0, 0.0, 0.02, 0.3, 2.0]))
        length = draw(st.floats(0, 1.2))
        speaker = draw(st.sampled_from(["Maya", "Maya", "Theo"]))
        words += spoken_words([Word(text=text, start_s=clock, end_s=clock + length)], speaker)
        clock += draw(st.sampled_from([length, length, length / 2]))
    return words


def said(text: str, pace_s: float = 0.35, speaker: str = "Maya", start_s: float = 0.0) -> list[SpokenWord]:
    words = [
        Word(text=part, start_s=start_s + index * pace_s, end_s=start_s + (index + 1) * pace_s)
        for index, part in enumerate(text.split())
    ]
    return spoken_words(words, speaker)


def lines(cues: Sequence[Cue]) -> list[tuple[str, ...]]:
    return [cue.line_texts for cue in cues]


@settings(max_examples=150, deadline=None)
@given(timed_words())
def test_every_word_appears_exactly_once_in_order(words: list[SpokenWord]) -> None:
    shown = "".join(word.text for cue in build_cues(words) for word in cue.words)
    assert shown == "".join(word.text for word in sorted(words, key=lambda word: word.start_s))


@settings(max_examples=150, deadline=None)
@given(timed_words())
def test_cues_are_in_order_apart_and_last_a_while(words: list[SpokenWord]) -> None:
    cues = build_cues(words)
    assert all(RULES.least_s - 1e-6 <= cue.end_s - cue.start_s <= RULES.longest_s + 1e-6 for cue in cues)
    for before, after in pairwise(cues):
        assert after.start_s - before.end_s >= RULES.gap_s - 1e-6


@settings(max_examples=150, deadline=None)
@given(timed_words())
def test_a_cue_has_one_speaker_and_at_most_two_lines_that_fit(words: list[SpokenWord]) -> None:
    for cue in build_cues(words):
        assert 1 <= len(cue.lines) <= 2
        assert all(0 < text_columns(text) <= RULES.line_columns for text in cue.line_texts)
        assert {word.speaker for word in cue.words} == {cue.speaker}


def test_a_long_sentence_breaks_at_its_comma_and_its_lines_are_balanced() -> None:
    words = said("When the projector finally went silent, the whole room stayed perfectly still.", 0.4)
    assert lines(build_cues(words)) == [
        ("When the projector finally went silent,", "the whole room stayed perfectly still.")
    ]


def test_a_line_does_not_end_with_an_article() -> None:
    words = said("We built a camera that could listen to the actors before they had spoken", 0.3)
    for cue in build_cues(words):
        assert all(text.split()[-1] not in {"the", "a", "to"} for text in cue.line_texts)


def test_a_change_of_speaker_starts_a_new_cue() -> None:
    words = said("Good evening.") + said("Hello!", speaker="Theo", start_s=0.9)
    assert [(cue.speaker, cue.text) for cue in build_cues(words)] == [
        ("Maya", "Good evening."),
        ("Theo", "Hello!"),
    ]


def test_a_long_pause_ends_a_cue() -> None:
    words = said("First thought") + said("second thought", start_s=5.0)
    cues = build_cues(words)
    assert [cue.text for cue in cues] == ["First thought", "second thought"]
    assert cues[0].end_s < 2


def test_a_short_cue_stays_long_enough_to_be_read() -> None:
    (cue,) = build_cues(said("Yes!", 0.2))
    assert cue.end_s - cue.start_s >= RULES.shortest_s


def test_normal_speech_keeps_the_reading_speed() -> None:
    text = "Every picture we make begins with a question, and the answer is never the one we expected to find. "
    cues = build_cues(said(text * 5, 0.36))
    speeds = [text_columns(cue.text) / (cue.end_s - cue.start_s) for cue in cues]
    assert max(speeds) <= RULES.most_cps
    assert min(cue.end_s - cue.start_s for cue in cues) >= RULES.shortest_s


def test_small_gaps_are_closed_down_to_two_frames() -> None:
    cues = build_cues(said("It works.") + said("Now we can sleep.", start_s=1.3))
    if len(cues) == 2:
        assert cues[1].start_s - cues[0].end_s == pytest.approx(RULES.gap_s)


def test_chinese_words_join_without_spaces_and_count_double() -> None:
    words = spoken_words(
        [Word(text=text, start_s=index * 0.3, end_s=index * 0.3 + 0.3) for index, text in enumerate("你好世界")]
    )
    (cue,) = build_cues(words)
    assert cue.text == "你好世界"
    assert text_columns(cue.text) == 8


def test_devanagari_marks_take_no_column() -> None:
    assert text_columns("हिन्दी") < len("हिन्दी")


def test_a_word_longer_than_a_line_is_cut_into_glued_pieces() -> None:
    cues = build_cues(said("x" * 100))
    assert "".join(cue.text for cue in cues) == "x" * 100


def test_words_with_spaces_inside_are_taken_apart_with_their_share_of_time() -> None:
    words = spoken_words([Word(text="New  York\n", start_s=1.0, end_s=2.0)], offset_s=10.0)
    assert [(word.text, word.start_s, word.end_s) for word in words] == [
        ("New", 11.0, 11.5),
        ("York", 11.5, 12.0),
    ]


def test_what_cannot_be_seen_is_cleaned_away() -> None:
    assert clean("a\u202eb\x00c\ud800\n d\t") == "abc d"
    assert spoken_words([Word(text="\u200b", start_s=0, end_s=1)]) == []


@pytest.mark.parametrize(
    ("before", "after", "cost"),
    [("end.", "The", 0), ("so,", "we", 1.5), ("ran", "and", 3), ("ran", "far", 6), ("the", "house", 9)],
    ids=["sentence", "clause", "conjunction", "plain", "article"],
)
def test_breaks_are_priced_by_what_they_tear(before: str, after: str, cost: float) -> None:
    assert break_cost(SpokenWord(before, 0, 1), SpokenWord(after, 1, 2), "en") == cost


def test_no_words_give_no_cues() -> None:
    assert build_cues([]) == []
