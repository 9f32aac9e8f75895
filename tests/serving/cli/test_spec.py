from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, JsonValue

from serving.cli.spec import (
    MAX_SPEC_BYTES,
    check_file,
    file_fields,
    location_of,
    named_files,
    read_spec,
    sniff,
    with_refs,
)
from serving.errors import BadInput, TooLarge
from serving.protocol.artifact import ArtifactRef
from serving.repository.yaml_lines import dotted
from tests.serving.jobs.film import FilmRequest

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 20
REF = ArtifactRef(sha256="a" * 64, size_bytes=1, name="a.png")


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    picture: ArtifactRef


class Clip(BaseModel):
    kind: Literal["clip"] = "clip"
    video: ArtifactRef | None = None
    inner: "list[Clip]" = []


class Zoo(BaseModel):
    title: str
    poster: ArtifactRef
    spare: ArtifactRef | None = None
    cats: list[Cat] = []
    shots: list[Annotated[Cat | Clip, Field(discriminator="kind")]] = []
    by_name: dict[str, ArtifactRef] = {}
    pair: tuple[str, ArtifactRef] | None = None


ZOO: dict[str, Any] = Zoo.model_json_schema()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param({"title": "a.png"}, {}, id="text stays text"),
        pytest.param({"poster": "a.png"}, {"poster": "a.png"}, id="a field"),
        pytest.param({"spare": "a.png"}, {"spare": "a.png"}, id="an optional field"),
        pytest.param({"spare": None, "poster": {"sha256": "x"}}, {}, id="already a reference"),
        pytest.param({"cats": [{"picture": "1"}, {"picture": "2"}]}, {"cats[0].picture": "1", "cats[1].picture": "2"},
                     id="in a list"),
        pytest.param({"shots": [{"kind": "clip", "video": "v"}]}, {"shots[0].video": "v"}, id="in a union"),
        pytest.param({"shots": [{"kind": "clip", "inner": [{"inner": [{"video": "v"}]}]}]},
                     {"shots[0].inner[0].inner[0].video": "v"}, id="in a schema that refers to itself"),
        pytest.param({"by_name": {"x": "1"}}, {"by_name.x": "1"}, id="in a mapping"),
        pytest.param({"pair": ["text", "file"]}, {"pair[1]": "file"}, id="in a tuple"),
        pytest.param({"unknown": "a.png", "cats": "no list", "pair": [1]}, {}, id="what does not fit is left alone"),
    ],
)  # fmt: skip
def test_files_are_found_where_the_schema_wants_artifacts(
    value: dict[str, JsonValue], expected: dict[str, str]
) -> None:
    assert {dotted(location): text for location, text in file_fields(ZOO, value)} == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["title", "poster", "cats", "picture", "shots", "inner", "pair", "x"]), inner)
    ),
    max_leaves=30,
)
schemas = st.recursive(
    st.sampled_from([{"format": "artifact"}, {"$ref": "#/$defs/a"}, {"$ref": "#"}, {"$ref": "#/no/where"}, True, None]),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "anyOf": st.lists(inner, max_size=3),
            "allOf": st.lists(inner, max_size=2),
            "items": inner,
            "prefixItems": st.lists(inner, max_size=2),
            "additionalProperties": inner,
            "properties": st.dictionaries(st.sampled_from(["poster", "cats"]), inner, max_size=2),
            "$defs": st.fixed_dictionaries({"a": inner}),
        },
    ),
    max_leaves=12,
)


@given(json_values)
def test_every_place_found_holds_text_and_can_be_replaced(value: JsonValue) -> None:
    document: dict[str, JsonValue] = {"poster": "p", "cats": [{"picture": value}], "shots": value}
    found = file_fields(ZOO, document)
    replaced = with_refs(document, {location: REF for location, _ in found})
    assert file_fields(ZOO, replaced) == []
    for location, text in found:
        assert _at(document, location) == text
        assert _at(replaced, location) == REF.model_dump(mode="json")


def _at(value: Any, location: tuple[str | int, ...]) -> Any:
    for part in location:
        value = value[part]
    return value


@given(schemas, json_values)
def test_no_schema_makes_the_walk_endless(schema: Any, value: JsonValue) -> None:
    if isinstance(schema, dict):
        for location, text in file_fields(schema, value if isinstance(value, dict) else {"poster": value}):
            assert isinstance(text, str)
            assert isinstance(location, tuple)


@given(st.lists(st.integers(0, 99) | st.from_regex(r"[a-z_]{1,8}", fullmatch=True), min_size=1))
def test_a_dotted_field_can_be_read_back(parts: list[str | int]) -> None:
    location = ("input", *parts)
    assert location_of(dotted(location)) == location


def test_a_complaint_of_the_mesh_gets_the_line_of_the_yaml(tmp_path: Path) -> None:
    path = tmp_path / "film.yaml"
    path.write_text("title: x\nactors:\n  - a\n  - nobody\n")
    spec = read_spec(path)
    told = spec.located(BadInput("nobody cannot act", field="input.actors[1]", fix="name somebody"))
    assert str(told) == f"{path}:4: actors[1]: nobody cannot act: name somebody"
    assert str(spec.located(BadInput("is missing", field="input.poster"))) == f"{path}:1: poster: is missing"
    both = spec.located(
        BadInput("is empty", field="input.title", fix="write some; input.actors[0]: is a: ask b; and 2 more")
    )
    assert str(both) == f"{path}:1: title: is empty: write some"
    assert both.__notes__ == [f"{path}:3: actors[0]: is a: ask b", "and 2 more"]
    other = BadInput("no such lane", field="lane")
    assert spec.located(other) is other


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("title: [", ":1", id="broken"),
        pytest.param("a: 1\na: 2\n", "repeated", id="repeated key"),
        pytest.param("- a\n", "must be a mapping", id="a list"),
        pytest.param("", "must be a mapping", id="nothing"),
        pytest.param("a: &x [1]\nb: *x\n", "alias", id="aliases"),
        pytest.param("x: " + "[" * 5000, "nested too deeply", id="deep"),
    ],
)
def test_a_broken_yaml_is_told_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "film.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        read_spec(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_a_missing_a_long_and_a_binary_yaml_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        read_spec(tmp_path / "none.yaml")
    with pytest.raises(BadInput, match="directory"):
        read_spec(tmp_path)
    long = tmp_path / "long.yaml"
    long.write_bytes(b"#" * (MAX_SPEC_BYTES + 1))
    with pytest.raises(TooLarge):
        read_spec(long)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="UTF-8"):
        read_spec(binary)


def test_files_are_looked_for_beside_the_yaml_and_checked(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(PNG)
    path = tmp_path / "film.yaml"
    path.write_text("title: x\nposter: pictures/a.png\n")
    [file] = named_files(FilmRequest.model_json_schema(), read_spec(path))
    assert (file.location, file.path) == (("poster",), tmp_path / "pictures" / "a.png")
    path.write_text("title: x\nposter: pictures/b.png\n")
    with pytest.raises(BadInput, match=r"film\.yaml:2: poster: pictures/b\.png: there is no such file"):
        named_files(FilmRequest.model_json_schema(), read_spec(path))


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        pytest.param("a.png", b"", "is empty", id="empty"),
        pytest.param("a.png", b"\xff\xd8\xff\xe0", "looks like image/jpeg", id="another kind"),
        pytest.param("a.wav", b"hello", "is no audio/x-wav: it looks like text: .*WAV", id="no sound"),
        pytest.param("a.png", b"x" * 63 + "é".encode(), "like text: .*PNG, JPEG or WebP", id="cut letter"),
        pytest.param("a.png", b"\0\1\2", "data of an unknown kind", id="unknown"),
        pytest.param("a.jpg", b"\0\0\0\x18ftypheic", "a HEIC picture: give a picture as PNG", id="from a phone"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInput, match=words):
        check_file(tmp_path / name)


def test_folders_are_refused_and_unknown_kinds_are_left_to_the_mesh(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not a file"):
        check_file(tmp_path)
    (tmp_path / "a.xyz").write_bytes(b"?")
    check_file(tmp_path / "a.xyz")


def test_signatures_are_known() -> None:
    assert sniff(PNG) == "image/png"
    assert sniff(b"RIFF\0\0\0\0WAVEfmt ") == "audio/x-wav"
    assert sniff(b"RIFF\0\0\0\0WEBPVP8 ") == "image/webp"
    assert sniff(b"hello") is None


@pytest.mark.parametrize("name", ["x" * 5000 + ".png", "~nobody-of-this-name/a.png", "a\0.png"])
def test_a_name_no_file_can_have_is_told_with_its_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "zoo.yaml").write_text(f"title: t\nposter: {name!r}\n".replace("\\x00", "\\0").replace("'", '"'))
    with pytest.raises(BadInput) as caught:
        named_files(ZOO, read_spec(tmp_path / "zoo.yaml"))
    assert caught.value.field == f"{tmp_path}/zoo.yaml:2: poster"
    assert caught.value.fix
    assert len(str(caught.value)) < 900
