"""Engines of faces refuse a checkpoint that does not fit in one line, when they load and not when they are asked."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from serving.backends.base import EngineContext
from serving.errors import ReelmeshError
from serving.repository.model import Source
from tests.servers.tiny import context_in, tiny_engine


@pytest.fixture
def context(tmp_path: Path) -> EngineContext:
    return context_in(tmp_path)


def refused(context: EngineContext, folder: Path, *, pickles: list[str] | None = None) -> str:
    source = Source(uri=f"file:{folder}", allow_pickles=pickles or [])
    with pytest.raises(ReelmeshError) as raised:
        tiny_engine("face_motion", context, source=source)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.mkdir()
    return path


def test_a_checkpoint_without_a_layer(context: EngineContext, folder: Path, sadtalker_weights: dict) -> None:
    weights = {key: value for key, value in sadtalker_weights.items() if "mapping1" not in key}
    save_file(weights, folder / "a.safetensors")
    assert "does not fit SadTalker's audio2exp: lacks mapping1.bias, mapping1.weight" in refused(context, folder)


def test_a_checkpoint_of_another_size(context: EngineContext, folder: Path, sadtalker_weights: dict) -> None:
    save_file(sadtalker_weights | {"audio2pose.netG.decoder.classbias": torch.zeros(45, 64)}, folder / "a.safetensors")
    assert "another shape netG.decoder.classbias [45, 64], not [46, 64]" in refused(context, folder)


def test_a_truncated_file(context: EngineContext, folder: Path, sadtalker_weights: dict) -> None:
    save_file(sadtalker_weights, folder / "a.safetensors")
    whole = (folder / "a.safetensors").read_bytes()
    (folder / "a.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "a.safetensors" in refused(context, folder)


def test_a_pickle_that_the_card_does_not_allow(context: EngineContext, folder: Path, sadtalker_weights: dict) -> None:
    torch.save(sadtalker_weights, folder / "a.pth")
    assert "a.pth is a pickle" in refused(context, folder)


def test_two_checkpoints_in_one_folder(context: EngineContext, folder: Path) -> None:
    for name in ("a", "b"):
        save_file({"weight": torch.ones(1)}, folder / f"{name}.safetensors")
    assert "several checkpoints: a.safetensors, b.safetensors" in refused(context, folder)


def test_an_empty_folder(context: EngineContext, folder: Path) -> None:
    assert refused(context, folder)
