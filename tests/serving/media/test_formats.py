"""Caption files: they parse back to the same cues, whatever the words hold."""

import html
import re

import pysubs2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.media.captions import Cue, SpokenWord, build_cues, spoken_words
from serving.media.formats import (
    WORD_JOINER,
    AssStyle,
    ass_colour,
    ass_text,
    ass_time,
    srt_time,
    to_ass,
    to_srt,
    to_vtt,
    vtt_time,
)
from serving.protocol.tasks import Word

HOSTILE = [
    "{\\an8}",
    "-->",
    "<i>",
    "</v>",
    "&amp;",
    "42",
    "\\N",
    "{",
    "}",
    "\\h",
    "00:00:01,000",
    "1\n\n2",
    "<b",
]
TEXTS = st.one_of(st.sampled_from([*HOSTILE, "नमस्ते", "你好", "مرحبا", "café", "👩‍🚀"]), st.text(max_size=12))


@st.composite
def cue_lists(draw: st.DrawFn) -> list[Cue]:
    texts = draw(st.lists(TEXTS, max_size=25))
    words = [Word(text=text, start_s=0.4 * at, end_s=0.4 * at + 0.4) for at, text in enumerate(texts)]
    return build_cues(spoken_words(words, draw(st.sampled_from(["", "Maya", "A > B & <c>", "x, y"]))))


def seen(text: str) -> str:
    return text.replace(WORD_JOINER, "")


@settings(max_examples=200, deadline=None)
@given(cue_lists())
def test_srt_blocks_parse_back_to_the_same_lines_and_times(cues: list[Cue]) -> None:
    blocks = [block.split("\n") for block in to_srt(cues).rstrip("\n").split("\n\n")] if cues else []
    assert [int(block[0]) for block in blocks] == list(range(1, len(cues) + 1))
    assert [block[1] for block in blocks] == [f"{srt_time(cue.start_s)} --> {srt_time(cue.end_s)}" for cue in cues]
    assert [tuple(map(seen, block[2:])) for block in blocks] == [cue.line_texts for cue in cues]


@settings(max_examples=200, deadline=None)
@given(cue_lists())
def test_pysubs2_reads_every_srt_cue_without_finding_markup(cues: list[Cue]) -> None:
    events = pysubs2.SSAFile.from_string(to_srt(cues), format_="srt").events if cues else []
    assert [(event.start, event.end) for event in events] == [
        (round(cue.start_s * 1000), round(cue.end_s * 1000)) for cue in cues
    ]
    assert all("\\an8" not in event.text.replace("{" + WORD_JOINER + "\\an8", "") for event in events)


@settings(max_examples=200, deadline=None)
@given(cue_lists(), st.booleans())
def test_vtt_parses_back_to_the_same_text(cues: list[Cue], word_times: bool) -> None:
    head, *blocks = to_vtt(cues, word_times=word_times).rstrip("\n").split("\n\n")
    assert head == "WEBVTT"
    shown = []
    for block in blocks:
        timing, *lines = block.split("\n")
        assert timing.count("-->") == 1
        assert "-->" not in "".join(lines)
        shown.append(tuple(html.unescape(re.sub(r"<[^>]*>", "", line)) for line in lines))
    assert shown == [cue.line_texts for cue in cues]


@settings(max_examples=200, deadline=None)
@given(cue_lists())
def test_ass_parses_back_to_the_same_text_and_order(cues: list[Cue]) -> None:
    events = pysubs2.SSAFile.from_string(to_ass(cues), format_="ass").events
    assert len(events) == len(cues)
    for event, cue in zip(events, cues, strict=True):
        bare = re.sub(r"(?<!\\)\{[^}]*\}", "", event.text)
        text = bare.replace("\\N", "\n").replace("\\{", "{").replace("\\}", "}")
        assert tuple(seen(text).split("\n")) == cue.line_texts
        assert abs(event.start - cue.start_s * 1000) <= 5


@settings(max_examples=100, deadline=None)
@given(cue_lists())
def test_ass_highlights_do_not_change_what_is_said(cues: list[Cue]) -> None:
    plain = pysubs2.SSAFile.from_string(to_ass(cues, AssStyle(highlight=None)), format_="ass").events
    assert [event.name for event in plain] == [cue.speaker.replace(",", " ") for cue in cues]


def test_ass_text_never_opens_an_override_block() -> None:
    assert ass_text("{\\an8}x") == f"\\{{\\{WORD_JOINER}an8\\}}x"


def test_scripts_get_their_own_font() -> None:
    words = spoken_words([Word(text="नमस्ते", start_s=0, end_s=1), Word(text="Maya", start_s=1, end_s=2)])
    text = to_ass(build_cues(words))
    assert "{\\fnNoto Sans Devanagari" in text
    assert text.count("\\fn") == 1


def test_the_word_being_said_is_lit_from_its_start_to_its_end() -> None:
    cue = Cue(10.0, 12.0, ((SpokenWord("Hello", 10.0, 10.5), SpokenWord("there", 10.5, 11.0)),))
    assert "\\t(460,500,\\1c&H57C8FF&)\\t(1000,1120,\\1c&HFFFFFF&)}there" in to_ass([cue])


def test_vtt_word_times_stand_inside_the_cue_and_rise() -> None:
    cue = Cue(1.0, 3.0, ((SpokenWord("One", 1.0, 1.5, "Maya"), SpokenWord("two", 1.5, 2.0, "Maya")),), "Maya")
    assert to_vtt([cue], word_times=True).endswith("00:00:01.000 --> 00:00:03.000\n<v Maya>One <00:00:01.500>two\n")


@pytest.mark.parametrize(
    ("seconds", "srt", "ass"),
    [
        (0, "00:00:00,000", "0:00:00.00"),
        (59.9996, "00:01:00,000", "0:01:00.00"),
        (3661.5, "01:01:01,500", "1:01:01.50"),
    ],
    ids=["zero", "rounds-up", "hours"],
)
def test_times_are_written_as_each_format_wants(seconds: float, srt: str, ass: str) -> None:
    assert (srt_time(seconds), vtt_time(seconds), ass_time(seconds)) == (srt, srt.replace(",", "."), ass)


def test_colours_are_turned_around_for_ass() -> None:
    assert ass_colour("#ffc857") == "&H57C8FF&"


def test_no_cues_are_an_empty_srt_and_a_valid_vtt() -> None:
    assert to_srt([]) == ""
    assert to_vtt([]) == "WEBVTT\n"
