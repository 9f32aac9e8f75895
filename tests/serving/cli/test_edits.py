"""What a person changes, as edits."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.cli.edits import difference, edits_of_file, edits_of_sets, patch_by_editor, stages_of_sets
from serving.errors import BadInput
from serving.jobs.merge_patch import merge_patch

INPUT = {"title": "A film", "script": [{"text": "Hello"}, {"text": "there", "mood": "calm"}], "actors": {"a": 1}}
KNOWN = {"input": INPUT, "results": {"captions": {"0": {"cues": [{"text": "Hi"}, {"text": "you"}]}}}}


@pytest.mark.parametrize(
    ("sets", "edits"),
    [
        pytest.param(["input.title=New"], {"input": {"title": "New"}}, id="text"),
        pytest.param(["input.clips=3"], {"input": {"clips": 3}}, id="number"),
        pytest.param(["input.title='3'"], {"input": {"title": "3"}}, id="quoted"),
        pytest.param(["input.title=null"], {"input": {"title": None}}, id="removed"),
        pytest.param(["input.actors.b=2"], {"input": {"actors": {"b": 2}}}, id="nested"),
        pytest.param(
            ["input.script[1].text=you"],
            {"input": {"script": [{"text": "Hello"}, {"text": "you", "mood": "calm"}]}},
            id="item of a list",
        ),
        pytest.param(["input.title=A film"], {}, id="nothing new"),
        pytest.param(
            ["results.translate.0.text=Hallo", "results.translate[1].text=da"],
            {"results": {"translate": {"0": {"text": "Hallo"}, "1": {"text": "da"}}}},
            id="results",
        ),
        pytest.param(
            ["results.captions.0.cues[1].text=all"],
            {"results": {"captions": {"0": {"cues": [{"text": "Hi"}, {"text": "all"}]}}}},
            id="item of a list of a result",
        ),
        pytest.param(["input.title=a=b"], {"input": {"title": "a=b"}}, id="equals sign"),
    ],
)
def test_assignments_become_merge_patches(sets: list[str], edits: dict[str, object]) -> None:
    assert edits_of_sets(sets, KNOWN) == edits


@pytest.mark.parametrize(
    "text",
    [
        "", "title=x", "input=x", "input.title", "results.clips=1", "input.script[7].text=x", "input.actors[0]=x",
        "input.title={",
    ],
)  # fmt: skip
def test_an_assignment_that_names_no_place_is_refused(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        edits_of_sets([text], KNOWN)
    assert (caught.value.field or "").startswith("--set")
    assert caught.value.fix


_JSON = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=3), _JSON, max_size=4), st.dictionaries(st.text(max_size=3), _JSON, max_size=4))
def test_the_difference_makes_the_new_value_of_the_old_one(old: dict[str, object], new: dict[str, object]) -> None:
    patch = difference(old, new)  # type: ignore[arg-type]
    assert merge_patch(old, patch) == new  # type: ignore[arg-type]
    assert (patch == {}) is (old == new)


def test_the_stages_that_are_named_are_found() -> None:
    assert stages_of_sets(["input.title=x", "results.clips.0.a=1", "results.clips.1.a=1"]) == ["clips"]


def test_a_file_holds_input_and_results_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "edits.yaml"
    path.write_text(json.dumps({"input": {"title": "x"}, "results": {"clips": {"0": {"a": 1}}}}))
    assert edits_of_file(path) == {"input": {"title": "x"}, "results": {"clips": {"0": {"a": 1}}}}
    path.write_text("input: {}\ntitle: x\n")
    with pytest.raises(BadInput, match=r"edits\.yaml:2"):
        edits_of_file(path)


def test_the_editor_of_the_person_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", "sed -i s/film/play/")
    assert patch_by_editor(INPUT, "job 17") == {"title": "A play"}
    monkeypatch.setenv("EDITOR", "true")
    assert patch_by_editor(INPUT, "job 17") == {}
    monkeypatch.setenv("EDITOR", "false")
    with pytest.raises(BadInput, match="ended with 1"):
        patch_by_editor(INPUT, "job 17")
