"""A model repository in a temporary folder, written file by file."""

from collections.abc import Callable
from pathlib import Path

import pytest

CARD = """\
description: A voice for tests
task: {task}
backend: {backend}
engine: builtin
license: {{name: MIT, commercial_use: true}}
source: {{uri: "builtin:"}}
"""

TENSOR_CONFIG = """\
backend: "onnxruntime"
max_batch_size: 8
input [ { name: "X" data_type: TYPE_FP32 dims: [4] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [2] } ]
"""

Write = Callable[..., Path]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def triton_model(repository: Path) -> Write:
    """Write a Triton model: ``triton_model("mlp", config=..., card=..., versions=(1,))``."""

    def write(
        name: str, *, config: str = TENSOR_CONFIG, card: str | None = None, versions: tuple[int, ...] = (1,)
    ) -> Path:
        folder = repository / name
        folder.mkdir()
        (folder / "config.pbtxt").write_text(config, encoding="utf-8")
        for version in versions:
            (folder / str(version)).mkdir()
            (folder / str(version) / "model.onnx").write_bytes(b"")
        if card is not None:
            (folder / "model.yaml").write_text(card, encoding="utf-8")
        return folder

    return write


@pytest.fixture
def ray_model(repository: Path) -> Write:
    """Write a Ray model whose config fits its task: ``ray_model("anna", task="speech", more="aliases: [voice]")``."""

    def write(name: str, *, task: str = "speech", more: str = "", config: str | None = None) -> Path:
        from serving.protocol.task_tensors import config_text

        folder = repository / name
        folder.mkdir()
        text = config_text(name, task) if config is None else config
        (folder / "config.pbtxt").write_text(text, encoding="utf-8")
        card = CARD.format(task=task, backend="ray") + more
        (folder / "model.yaml").write_text(card, encoding="utf-8")
        return folder

    return write
