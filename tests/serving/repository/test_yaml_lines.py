import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.repository.yaml_lines import YamlProblem, dotted, load_yaml


def test_every_value_knows_its_line() -> None:
    data, lines = load_yaml("a: 1\nb:\n  - x\n  - c: 2\n")
    assert data == {"a": 1, "b": ["x", {"c": 2}]}
    assert (lines.of(("a",)), lines.of(("b", 0)), lines.of(("b", 1, "c"))) == (1, 3, 4)


def test_an_unknown_place_has_the_line_of_what_encloses_it() -> None:
    _, lines = load_yaml("a:\n  b: 1\n")
    assert lines.of(("a", "b", "bool")) == 2
    assert lines.of(("z",)) == 1


def test_a_date_stays_text() -> None:
    assert load_yaml("revision: 2024-01-31")[0] == {"revision": "2024-01-31"}


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        pytest.param("a: [1", 1, "not YAML", id="syntax"),
        pytest.param("a: 1\na: 2\n", 2, "repeated", id="repeated key"),
        pytest.param("a: &x [1]\nb: *x\n", 1, "alias", id="alias"),
        pytest.param("a: !!python/object:os.system {}\n", 1, "not YAML", id="python tag"),
        pytest.param("a: " + "[" * 100 + "]" * 100, 1, "nested too deeply", id="deep"),
        pytest.param("[" * 100_000, 1, "", id="very deep"),
        pytest.param("a: \x00", 1, "not YAML", id="control character"),
        pytest.param("a: 1\n---\nb: 2\n", 2, "not YAML", id="two documents"),
        pytest.param("{[1]: 2}", 1, "not YAML", id="list as key"),
    ],
)
def test_bad_yaml_is_refused_with_its_line(text: str, line: int, problem: str) -> None:
    with pytest.raises(YamlProblem) as caught:
        load_yaml(text)
    assert caught.value.line == line
    assert problem in caught.value.problem
    assert caught.value.fix


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('a: 1\ntitle: "My film\nscript: x\nb: 1\n', id="to the end"),
        pytest.param('a: 1\ntitle: "My film\nscript: "Anna": x\nb: 1\n', id="to the next quote"),
        pytest.param("a: 1\ntitle: 'My film\nb: 1\nlanguage: 'en'\n", id="single"),
    ],
)
def test_an_open_quote_is_told_where_it_was_opened(text: str) -> None:
    with pytest.raises(YamlProblem, match="quote") as caught:
        load_yaml(text)
    assert caught.value.line == 2


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        load_yaml(text)
    except YamlProblem as problem:
        assert problem.line >= 1


def test_a_location_reads_as_a_path() -> None:
    assert dotted(("voices", "anna", "language")) == "voices.anna.language"
    assert dotted(("fallback", 0)) == "fallback[0]"
    assert dotted(()) == "-"
