"""What a result depends on, of a model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.repository.identity import Identity, identity_of, is_pinned
from serving.repository.model import Model, ModelCard, Source

CARD: dict[str, Any] = {
    "description": "A voice.",
    "task": "speech",
    "backend": "ray",
    "engine": "espeak",
    "license": {"name": "GPL-3.0", "commercial_use": True},
    "source": {"uri": "hf:studio/voice", "revision": "a1"},
}


def model(name: str = "voice", versions: tuple[int, ...] = (1,), **card: object) -> Model:
    return Model(name, Path("/models") / name, ModelCard.model_validate(CARD | card), ModelConfig(), versions)


def test_a_new_revision_other_options_or_newer_files_are_another_identity() -> None:
    same = identity_of(model()).digest
    newer = model(source={"uri": "hf:studio/voice", "revision": "a2"})
    others = [
        newer,
        model(options={"pitch": 3}),
        model(versions=(1, 2)),
        model("other"),
        model(engine="coqui"),
    ]
    assert same not in {identity_of(other).digest for other in others}


def test_what_no_result_depends_on_leaves_the_identity_as_it_is() -> None:
    other = model(description="A fine voice.", share={"cpu": 2}, fallback=["other"], warm_up=True)
    assert identity_of(other).digest == identity_of(model()).digest


def test_engines_that_are_part_of_the_software_say_so() -> None:
    assert identity_of(model(source={"uri": "builtin:espeak"})).is_own_code
    assert not identity_of(model()).is_own_code


@pytest.mark.parametrize(
    ("uri", "revision", "pinned"),
    [
        ("builtin:music", "1", True),
        ("wheel:pocketsphinx==5.1.1#model", None, True),
        ("hf:owner/name", "main", False),
        ("hf:owner/name", None, False),
        ("hf:owner/name", "0123456789abcdef0123456789abcdef01234567", True),
        ("mlflow:models/writer/3", None, True),
        ("s3://bucket/weights", None, False),
        ("s3://bucket/weights", "2026-11", True),
        ("file:weights", None, False),
    ],
)
def test_only_what_names_bytes_is_pinned(uri: str, revision: str | None, pinned: bool) -> None:
    assert is_pinned(Source(uri=uri, revision=revision)) is pinned


def test_an_identity_is_fixed_if_all_of_its_weights_are() -> None:
    fixed = Identity("a", "builtin:a", None, "d", "MIT", commercial_use=True)
    moving = replace(fixed, model="b", pinned=False)
    assert fixed.is_fixed
    assert not moving.is_fixed
    assert not replace(fixed, others=(moving,)).is_fixed
