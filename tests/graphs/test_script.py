"""Scripts into turns and scenes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs.script import MAX_TURN_CHARS, MAX_TURNS, paragraphs, parse_scenes, parse_turns
from serving.errors import BadInput

SPEAKERS = ["Asha", "Ravi"]


def test_a_turn_is_a_name_a_colon_and_words() -> None:
    turns = parse_turns("Asha: Hello.\nRavi: Hi: how are you?", SPEAKERS)
    assert [(turn.speaker, turn.text, turn.line) for turn in turns] == [
        (0, "Hello.", 1),
        (1, "Hi: how are you?", 2),
    ]


def test_names_are_compared_without_regard_to_case_and_comments_are_skipped() -> None:
    turns = parse_turns("# a note\n\nASHA: One.\nravi: Two.", SPEAKERS)
    assert [turn.speaker for turn in turns] == [0, 1]


def test_a_line_without_a_name_continues_the_turn() -> None:
    turns = parse_turns("Asha: One,\n  and two.\nRavi: Three.", SPEAKERS)
    assert turns[0].text == "One, and two."


def test_a_colon_inside_a_sentence_is_not_a_speaker() -> None:
    turns = parse_turns("Asha: It was so.\nthe truth is this: it rained.", SPEAKERS)
    assert turns[0].text == "It was so. the truth is this: it rained."


@pytest.mark.parametrize(
    ("script", "part"),
    [
        pytest.param("", "nothing to say", id="empty"),
        pytest.param("   \n\n# only a comment", "nothing to say", id="only comments"),
        pytest.param("Bob: Hello.", "line 1: 'Bob' is not a speaker", id="unknown speaker"),
        pytest.param("Asha: Hello.\nRavo: Hi.", "did you mean 'Ravi'", id="typo is pointed out"),
        pytest.param("Hello there", "is not a speaker", id="no name at all"),
        pytest.param("Asha: ...", "line 1: the turn has no words", id="no words"),
        pytest.param("Asha: " + "x" * (MAX_TURN_CHARS + 1), "over the bound", id="long turn"),
        pytest.param("Asha: x\n" * (MAX_TURNS + 1), "over the bound", id="many turns"),
    ],
)
def test_a_script_that_cannot_be_spoken_is_refused(script: str, part: str) -> None:
    with pytest.raises(BadInput, match=r".") as caught:
        parse_turns(script, SPEAKERS)
    assert part in str(caught.value)
    assert caught.value.field == "script"
    assert caught.value.fix


@given(st.text(max_size=400))
def test_any_text_gives_turns_or_a_clear_refusal(script: str) -> None:
    try:
        turns = parse_turns(script, SPEAKERS)
    except BadInput as error:
        assert error.field == "script"
    else:
        assert turns
        assert all(turn.text for turn in turns)


def test_scenes_have_headings_directions_and_narration() -> None:
    scenes = parse_scenes("# Dawn\n[image: river]\n[motion: pan_left]\nThe river\nwakes.\n\nEXT. CITY - DAY\nCars.")
    assert [(scene.title, scene.narration, scene.image, scene.motion) for scene in scenes] == [
        ("Dawn", "The river wakes.", "river", "pan_left"),
        ("EXT. CITY - DAY", "Cars.", None, None),
    ]


def test_text_before_the_first_heading_is_a_scene() -> None:
    assert [scene.title for scene in parse_scenes("Once upon a time.\n# Two\nThe end.")] == ["", "Two"]


@pytest.mark.parametrize("script", ["", "\n\n", "# Only a title", "# A\nwords\n# B\n...\n"])
def test_scenes_without_narration_are_refused(script: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_scenes(script)
    assert caught.value.field == "script"


@given(st.text(alphabet=st.sampled_from("#[]: \nimageotnscE.XT-ab"), max_size=300))
def test_any_text_gives_scenes_or_a_clear_refusal(script: str) -> None:
    try:
        scenes = parse_scenes(script)
    except BadInput as error:
        assert error.field == "script"
    else:
        assert all(scene.narration for scene in scenes)


def test_a_name_in_a_direction_may_hold_spaces() -> None:
    (scene,) = parse_scenes("# One\n[ image : my old river.png ]\n[Motion: zoom_in]\nIt flows.")
    assert (scene.image, scene.motion, scene.narration) == ("my old river.png", "zoom_in", "It flows.")


@pytest.mark.parametrize("line", ["[imgae: river]", "[music: calm]", "[image: ]"])
def test_a_direction_nobody_knows_is_refused_instead_of_read_aloud(line: str) -> None:
    with pytest.raises(BadInput, match="line 2: there is no direction") as caught:
        parse_scenes(f"# One\n{line}\nIt flows.")
    assert caught.value.field == "script"
    assert caught.value.fix


def test_brackets_without_a_colon_are_narration() -> None:
    assert parse_scenes("# One\n[sic] he said.")[0].narration == "[sic] he said."


def test_empty_lines_part_paragraphs_and_other_line_ends_do_not() -> None:
    assert paragraphs("  One,\n  and more.\n \t\n\nTwo.\n", field="text") == ["One, and more.", "Two."]


@given(st.text(alphabet=st.sampled_from("ab \n.\t"), max_size=200))
def test_any_text_gives_paragraphs_or_a_clear_refusal(text: str) -> None:
    try:
        parts = paragraphs(text, field="text")
    except BadInput as error:
        assert error.field == "text"
        assert error.fix
    else:
        assert "".join("".join(parts).split()) == "".join(text.split())
