"""Provenance: the record says what made a file, in words other tools know, and is the same every time."""

import json

import pytest

from serving.media.provenance import (
    DigitalSourceType,
    ModelUse,
    build_provenance,
    source_type,
    to_json,
)
from serving.protocol.artifact import ArtifactRef

REF = ArtifactRef(sha256="a" * 64, media_type="video/mp4", size_bytes=7, name="film.mp4")


def record(source: DigitalSourceType = DigitalSourceType.COMPOSITE) -> bytes:
    return to_json(
        build_provenance(
            job={"id": "job-1", "type": "podcast_video"},
            source=source,
            inputs={"speakers[0].portrait": REF},
            outputs={"film.mp4": REF},
            models=[ModelUse("speech", "speech", "builtin:espeak", "1", "GPL-3.0", True)],
            seeds={"job": 7},
            versions={"reelmesh": "0.1.0"},
            checks=[{"name": "duration", "ok": True}],
        )
    )


def test_the_record_is_json_with_hashes_models_and_seeds() -> None:
    data = json.loads(record())
    assert data["inputs"][0]["role"] == "speakers[0].portrait"
    assert data["outputs"][0]["sha256"] == "a" * 64
    assert data["models"][0]["license"] == "GPL-3.0"
    assert data["seeds"] == {"job": 7}
    assert data["ai_generated"] is True


def test_the_label_follows_c2pa_and_iptc() -> None:
    (assertion,) = json.loads(record())["assertions"]
    (action,) = assertion["data"]["actions"]
    assert assertion["label"] == "c2pa.actions.v2"
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"].endswith("/digitalsourcetype/compositeSynthetic")
    assert action["softwareAgent"] == {"name": "Reelmesh", "version": "0.1.0"}


def test_captions_on_a_recording_are_an_edit_not_a_creation() -> None:
    data = json.loads(record(DigitalSourceType.ENHANCED))
    assert data["ai_generated"] is False
    assert data["assertions"][0]["data"]["actions"][0]["action"] == "c2pa.edited"


def test_equal_facts_give_equal_bytes() -> None:
    assert record() == record()


@pytest.mark.parametrize(
    ("from_media", "generated", "trained", "label"),
    [
        (True, True, True, "compositeSynthetic"),
        (False, True, True, "trainedAlgorithmicMedia"),
        (False, True, False, "algorithmicMedia"),
        (True, False, True, "algorithmicallyEnhanced"),
    ],
    ids=["portraits", "from-words-by-models", "from-words-by-algorithms", "captions-only"],
)
def test_the_source_type_fits_how_the_file_was_made(
    from_media: bool, generated: bool, trained: bool, label: str
) -> None:
    assert source_type(from_media=from_media, generated=generated, trained=trained).value == label
