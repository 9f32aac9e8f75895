"""Tiny checkpoints of pictures and clips have the published layouts, and are the same each time."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from serving.backends.ray.tiny import pictures
from tests.serving.backends.ray.tiny.made import digests, keys, made_twice

MAKERS: dict[Callable[[Path], Mapping[str, Any]], tuple[str, str]] = {
    pictures.sdxl: (".", "StableDiffusionXLPipeline"),
    pictures.sdxl_controlnet: ("base", "StableDiffusionXLPipeline"),
    pictures.animatediff: ("base", "StableDiffusionPipeline"),
    pictures.stable_video_diffusion: (".", "StableVideoDiffusionPipeline"),
}


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_a_checkpoint_is_the_same_each_time(make: Callable[[Path], Mapping[str, Any]], tmp_path: Path) -> None:
    folder, _ = made_twice(make, tmp_path)
    place, kind = MAKERS[make]
    assert json.loads((folder / place / "model_index.json").read_text())["_class_name"] == kind
    assert not [name for name in digests(folder) if name.endswith((".bin", ".pt", ".ckpt"))]


def test_tokenizers_are_the_published_ones_kinds_of_file(tmp_path: Path) -> None:
    pictures.sdxl(tmp_path)
    found = {path.name for path in (tmp_path / "tokenizer").iterdir()}
    assert {"vocab.json", "merges.txt", "tokenizer_config.json"} <= found
    assert "tokenizer.json" not in found


def test_the_motion_module_and_the_controlnet_have_the_published_names(tmp_path: Path) -> None:
    for make, name in ((pictures.animatediff, "motion"), (pictures.sdxl_controlnet, "controlnet")):
        (tmp_path / name).mkdir()
        make(tmp_path / name)
    motion = keys(tmp_path / "motion" / "motion" / "diffusion_pytorch_model.safetensors")
    assert "down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q.weight" in motion
    control = keys(tmp_path / "controlnet" / "controlnet" / "diffusion_pytorch_model.safetensors")
    assert {"controlnet_cond_embedding.conv_in.weight", "controlnet_mid_block.weight"} <= control


def test_an_adapter_has_the_names_that_training_scripts_write(tmp_path: Path) -> None:
    pictures.sdxl(tmp_path)
    found = keys(tmp_path / "adapters" / "ink" / "pytorch_lora_weights.safetensors")
    assert all(name.startswith("unet.") and name.endswith((".lora_A.weight", ".lora_B.weight")) for name in found)
