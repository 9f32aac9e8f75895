"""What makes two pieces of work the same."""

from dataclasses import replace

import pytest
from pydantic import JsonValue

from serving.jobs import keys
from serving.jobs.keys import json_refs, request_key, step_key
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import AlignmentRequest, SpeechRequest
from serving.repository.identity import Identity

VOICE = Identity("voice", "hf:studio/voice", "a1", "d1", "MIT", commercial_use=True)
LINE = SpeechRequest(text="Hello", voice="narrator")


def ref(name: str, digit: str = "a") -> ArtifactRef:
    return ArtifactRef(sha256=digit * 64, media_type="audio/wav", size_bytes=3, name=name)


def test_text_seed_model_and_revision_are_part_of_the_key() -> None:
    found = {
        request_key(LINE, VOICE),
        request_key(LINE.model_copy(update={"seed": 1}), VOICE),
        request_key(LINE.model_copy(update={"text": "Hi"}), VOICE),
        request_key(LINE, replace(VOICE, model="other")),
        request_key(LINE, replace(VOICE, digest="d2")),
    }
    assert len(found) == 5
    assert request_key(SpeechRequest(voice="narrator", text="Hello"), VOICE) in found


def test_files_are_told_by_their_content_and_not_by_their_names() -> None:
    one, other = (AlignmentRequest(audio=ref(name), text="x") for name in ("a.wav", "b.wav"))
    changed = AlignmentRequest(audio=ref("a.wav", "b"), text="x")
    assert request_key(one, VOICE) == request_key(other, VOICE) != request_key(changed, VOICE)


def test_what_the_software_does_itself_depends_on_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    own = replace(VOICE, source="builtin:espeak")
    before = request_key(LINE, VOICE), request_key(LINE, own), step_key("film", "captions", "cut", {"a": ref("x")})
    monkeypatch.setattr(keys, "software_version", lambda: "99")
    after = request_key(LINE, VOICE), request_key(LINE, own), step_key("film", "captions", "cut", {"a": ref("x")})
    assert before[0] == after[0]
    assert before[1] != after[1]
    assert before[2] != after[2]


def test_references_are_found_in_json_once_each_and_in_order() -> None:
    value: JsonValue = {
        "b": [ref("x", "b").model_dump(), {"deep": ref("y", "c").model_dump()}],
        "a": ref("z", "b").model_dump(),
    }
    assert [found.name for found in json_refs(value)] == ["x", "y"]
