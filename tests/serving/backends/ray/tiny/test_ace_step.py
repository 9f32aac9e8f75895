"""Tiny ACE-Step checkpoints have the published layout, distilled and guided."""

import json
from pathlib import Path

import pytest

from serving.backends.ray.tiny.ace_step import make_base, make_turbo
from tests.serving.backends.ray.tiny.made import keys, made_twice


@pytest.mark.parametrize(("make", "turbo"), [(make_base, False), (make_turbo, True)], ids=["base", "turbo"])
def test_a_checkpoint_is_the_same_each_time_and_in_the_published_layout(
    make: object, turbo: bool, tmp_path: Path
) -> None:
    folder, _ = made_twice(make, tmp_path)  # type: ignore[arg-type]
    index = json.loads((folder / "model_index.json").read_text())
    assert index["condition_encoder"] == ["ace_step", "AceStepConditionEncoder"]
    assert json.loads((folder / "transformer" / "config.json").read_text())["is_turbo"] is turbo
    vae = json.loads((folder / "vae" / "config.json").read_text())
    assert (vae["sampling_rate"], vae["downsampling_ratios"]) == (48_000, [2, 4, 4, 6, 10])
    assert {"silence_latent", "null_condition_emb"} <= keys(
        folder / "condition_encoder" / "diffusion_pytorch_model.safetensors"
    )
