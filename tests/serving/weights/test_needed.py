"""All the sources of a model are found."""

from pathlib import Path

from serving.repository.model import Adapter, Component, Source
from serving.weights.needed import sources_of
from tests.serving.weights.models import model


def test_the_models_own_its_parts_and_its_adapters_are_listed(tmp_path: Path) -> None:
    own = model(tmp_path, "hf:a/b")
    more = {
        "parts": {
            "control": Component(source=Source(uri="hf:a/control")),
            "x": Component(source=Source(uri="export:x")),
        },
        "adapters": {"noir": Adapter(source=Source(uri="file:noir.safetensors"))},
    }
    own.card = own.card.model_copy(update=more)
    assert [(one.label, one.field, one.model.card.source.uri) for one in sources_of(own)] == [
        ("writer", "source", "hf:a/b"),
        ("writer parts.control", "parts.control.source", "hf:a/control"),
        ("writer adapters.noir", "adapters.noir.source", "file:noir.safetensors"),
    ]
    assert sources_of(model(tmp_path, "builtin:x")) == []
