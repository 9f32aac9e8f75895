"""What is said of a backend before any Triton is asked."""

from pathlib import Path

import pytest

from serving.repository.findings import errors
from serving.repository.lint import lint


def told(repository: Path) -> list[str]:
    return [found.render(repository) for found in lint([repository]) if found.field in ("backend", "platform")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('backend: "pyton"', "m/config.pbtxt:2:backend: Triton is not known to have a backend 'pyton': did you mean"),
        (
            'platform: "onx"',
            "m/config.pbtxt:2:platform: Triton is not known to have a backend 'onx': put libtriton_onx.so",
        ),
    ],
    ids=["misspelt", "like none"],
)
def test_a_backend_that_no_triton_is_known_to_have_is_warned_of(
    repository: Path, triton_model, line: str, expected: str
) -> None:
    triton_model("m", config=f"max_batch_size: 1\n{line}\n")
    (found,) = told(repository)
    assert found.startswith(expected)
    assert not [each for each in errors(lint([repository])) if each.field in ("backend", "platform")]


@pytest.mark.parametrize("backend", ["tensorrt", "vllm", "fil", "dali", "python"])
def test_a_backend_of_nvidias_images_is_known(repository: Path, triton_model, backend: str) -> None:
    triton_model("m", config=f'backend: "{backend}"')
    assert told(repository) == []


def test_a_model_may_bring_its_backend_along(repository: Path, triton_model) -> None:
    folder = triton_model("m", config='backend: "own"')
    (folder / "1" / "libtriton_own.so").write_bytes(b"")
    assert told(repository) == []
