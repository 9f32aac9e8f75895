"""Who made an artifact, by the record that lies beside it."""

from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.jobs.makers import Run, provenance_of, revision_in
from serving.jobs.parts import Part
from serving.jobs.results import Place
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import ImageRequest
from serving.repository.identity import identity_of
from serving.repository.model import Model, ModelCard

MADE = ArtifactRef(sha256="a" * 64, media_type="image/png", size_bytes=1)
CARD: dict[str, Any] = {
    "description": "Pictures.",
    "task": "image",
    "backend": "ray",
    "engine": "diffusers",
    "license": {"name": "OpenRAIL", "commercial_use": True},
    "source": {"uri": "hf:studio/painter", "revision": "main"},
    "parts": {"controlnet": {"source": {"uri": "hf:studio/edges", "revision": "b2"}}},
    "adapters": {
        "ink": {"source": {"uri": "hf:fan/ink"}, "license": {"name": "CC-BY-NC-4.0", "commercial_use": False}},
        "oil": {"source": {"uri": "hf:fan/oil"}},
    },
}


def test_a_record_names_the_parts_and_the_adapter_with_their_own_terms() -> None:
    model = Model("painter", Path("/models/painter"), ModelCard.model_validate(CARD), ModelConfig(), ())
    request = ImageRequest(prompt="x", width=64, height=64, adapter="ink")
    by = identity_of(model, "ink")
    part: Any = Part(None, None, "key", request, by)  # type: ignore[arg-type]  # nothing is run
    run = Run("film", "non_commercial", "ray/painter", "c0ffee")
    ((_, record),) = provenance_of([MADE], part, Place("job", "stage", 0), run, by)
    told = [(used.model, used.source, used.revision, used.license, used.commercial_use) for used in record.models]
    assert told == [
        ("painter", "hf:studio/painter", "c0ffee", "OpenRAIL", True),
        ("painter/controlnet", "hf:studio/edges", "b2", "OpenRAIL", True),
        ("painter/ink", "hf:fan/ink", None, "CC-BY-NC-4.0", False),
    ]


@pytest.mark.parametrize(
    ("result", "revision"),
    [({"made": {"revision": "c0ffee"}}, "c0ffee"), ({"made": None}, None), ({"made": {}}, None), ([1], None)],
)
def test_the_revision_is_the_one_that_the_replica_resolved(result: object, revision: str | None) -> None:
    assert revision_in(result) == revision
