"""Tiny CogVideoX checkpoints have the published layouts."""

import json
from pathlib import Path

import pytest

from serving.backends.ray.tiny.cogvideox import TOKENS, make_2b, make_5b, make_5b_i2v
from tests.serving.backends.ray.tiny.made import keys, made_twice


@pytest.mark.parametrize(
    ("make", "pipeline", "scheduler", "learned"),
    [
        (make_2b, "CogVideoXPipeline", "CogVideoXDDIMScheduler", False),
        (make_5b, "CogVideoXPipeline", "CogVideoXDPMScheduler", False),
        (make_5b_i2v, "CogVideoXImageToVideoPipeline", "CogVideoXDPMScheduler", True),
    ],
    ids=["2b", "5b", "5b-i2v"],
)
def test_a_checkpoint_is_the_same_each_time_and_in_the_published_layout(
    make: object, pipeline: str, scheduler: str, learned: bool, tmp_path: Path
) -> None:
    folder, _ = made_twice(make, tmp_path)  # type: ignore[arg-type]
    index = json.loads((folder / "model_index.json").read_text())
    assert (index["_class_name"], index["scheduler"][1]) == (pipeline, scheduler)
    config = json.loads((folder / "transformer" / "config.json").read_text())
    assert config["max_text_seq_length"] == TOKENS
    positions = "patch_embed.pos_embedding" in keys(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    assert positions == learned
