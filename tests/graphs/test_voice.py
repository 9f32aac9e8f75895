"""Voices: what is said by whom, what is refused, where lines lie, captions where words can be timed."""

from pathlib import Path
from typing import Any

import pytest

from graphs.inputs import Studio
from graphs.timeline import Pauses, lay_out_turns
from graphs.voice import MAX_CHARS, VoiceRequest, check, name_of, predict, speech_of, told
from serving.artifacts.store import ArtifactStore
from serving.errors import BadInput

STUDIO = Studio(voices={"narrator": "", "asha": ""}, languages={"speech": ("en", "hi")}, models={})


def test_a_line_takes_what_it_does_not_say_from_the_request() -> None:
    request = VoiceRequest.model_validate(
        {"lines": [{"text": "One."}, {"text": "दो", "voice": "asha", "language": "hi", "speed": 1.5}], "seed": 4}
    )
    asked = [(line.text, line.voice, line.language, line.speed, line.seed) for line in speech_of(request)]
    assert asked == [("One.", "narrator", "en", 1.0, 4), ("दो", "asha", "hi", 1.5, 4)]


def test_the_paragraphs_of_a_text_are_its_lines() -> None:
    request = VoiceRequest(text="One,\nand more.\n\n  \nTwo.", voice="asha")
    assert [(line.text, line.voice) for line in speech_of(request)] == [("One, and more.", "asha"), ("Two.", "asha")]


LINE = "word " * 390


@pytest.mark.parametrize(
    ("wrong", "field", "part"),
    [
        pytest.param({}, "text", "nothing to say", id="neither text nor lines"),
        pytest.param({"text": "A.", "lines": [{"text": "B."}]}, "text", "both", id="text and lines"),
        pytest.param({"text": " \n\n "}, "text", "nothing to say", id="blank"),
        pytest.param({"text": "Hello.\n\n..."}, "text", "paragraph 2 has no words", id="paragraph without words"),
        pytest.param({"text": "x" * 2001}, "text", "paragraph 1 is over the bound", id="long paragraph"),
        pytest.param({"text": "A.\n\n" * 501}, "text", "501 paragraphs", id="many paragraphs"),
        pytest.param({"lines": [{"text": "A."}, {"text": "!"}]}, "lines[1].text", "no words", id="line without words"),
        pytest.param({"lines": [{"text": LINE}] * 6}, "lines", f"at most {MAX_CHARS}", id="long lines together"),
        pytest.param({"text": "A.", "voice": "ash"}, "voice", "did you mean 'asha'", id="voice"),
        pytest.param(
            {"lines": [{"text": "A."}, {"text": "B.", "voice": "bob"}]}, "lines[1].voice", "Voices:", id="line's voice"
        ),
        pytest.param({"lines": [{"text": "A."}], "voice": "bob"}, "voice", "Voices:", id="voice of lines without one"),
        pytest.param(
            {"lines": [{"text": "A.", "language": "xx"}]}, "lines[0].language", "one of: en, hi", id="line's language"
        ),
        pytest.param({"text": "A.", "language": "xx"}, "language", "one of: en, hi", id="language"),
    ],
)
async def test_what_cannot_be_spoken_is_refused_with_field_and_fix(
    tmp_path: Path, wrong: dict[str, Any], field: str, part: str
) -> None:
    with pytest.raises(BadInput) as caught:
        await check(VoiceRequest.model_validate(wrong), ArtifactStore(tmp_path.as_uri(), tmp_path), studio=STUDIO)
    assert caught.value.field == field
    assert caught.value.fix
    assert part in str(caught.value)


def test_facts_tell_where_each_line_lies() -> None:
    request = VoiceRequest.model_validate({"lines": [{"text": "A."}, {"text": "B.", "voice": "asha"}]})
    segments = lay_out_turns([1.0, 2.0], 50, Pauses(0.2, 0.5, 0.4))
    assert told(speech_of(request), segments) == [
        {"voice": "narrator", "language": "en", "start_s": 0.2, "end_s": 1.2},
        {"voice": "asha", "language": "en", "start_s": 1.7, "end_s": 3.7},
    ]


def test_clips_sort_as_they_are_said() -> None:
    names = [name_of(index) for index in range(120)]
    assert (names[0], names[-1]) == ("line-001.wav", "line-120.wav")
    assert names == sorted(names)


def test_more_lines_cost_more() -> None:
    line = {"text": "A line of some length."}
    costs = [predict(VoiceRequest.model_validate({"lines": [line] * count})) for count in (1, 10)]
    assert costs[1] == pytest.approx(10 * costs[0])
    assert costs[0] > 0
