from pydantic import BaseModel

from serving.jobs.refs import first_file_name, refs_in, walk_refs
from serving.protocol.artifact import ArtifactRef
from serving.repository.yaml_lines import dotted


def ref(digit: str) -> ArtifactRef:
    return ArtifactRef(sha256=digit * 64, size_bytes=1)


class Inner(BaseModel):
    file: ArtifactRef


class Outer(BaseModel):
    first: ArtifactRef
    many: list[Inner]
    named: dict[str, ArtifactRef]
    pair: tuple[int, ArtifactRef | None]
    text: str = "artifact"


OUTER = Outer(first=ref("a"), many=[Inner(file=ref("b")), Inner(file=ref("a"))], named={"x": ref("c")}, pair=(1, None))


def test_every_reference_is_found_with_its_path() -> None:
    found = [(dotted(path), ref.sha256[0]) for path, ref in walk_refs(OUTER, ("input",))]
    assert found == [
        ("input.first", "a"),
        ("input.many[0].file", "b"),
        ("input.many[1].file", "a"),
        ("input.named.x", "c"),
    ]


def test_equal_artifacts_are_listed_once_and_the_list_is_bounded() -> None:
    assert [ref.sha256[0] for ref in refs_in(OUTER, limit=10)] == ["a", "b", "c"]
    assert [ref.sha256[0] for ref in refs_in(OUTER, limit=2)] == ["a", "b"]


def test_the_first_named_file_of_json_is_found() -> None:
    file = {"sha256": "a" * 64, "name": "recording.flac"}
    assert first_file_name({"language": "en", "name": "no file", "media": file}) == "recording.flac"
    assert first_file_name({"parts": [1, {"name": "Anna"}, [file]]}) == "recording.flac"
    assert first_file_name({"name": "no file", "parts": []}) is None
