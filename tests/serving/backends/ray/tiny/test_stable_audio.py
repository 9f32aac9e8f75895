"""The tiny Stable Audio checkpoint has the published layout."""

import json
from pathlib import Path

from serving.backends.ray.tiny.stable_audio import make
from tests.serving.backends.ray.tiny.made import keys, made_twice


def test_a_checkpoint_is_the_same_each_time_and_in_the_published_layout(tmp_path: Path) -> None:
    folder, _ = made_twice(make, tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    assert index["projection_model"] == ["stable_audio", "StableAudioProjectionModel"]
    assert index["scheduler"][1] == "CosineDPMSolverMultistepScheduler"
    vae = json.loads((folder / "vae" / "config.json").read_text())
    assert (vae["sampling_rate"], vae["audio_channels"], vae["downsampling_ratios"]) == (44_100, 2, [2, 4, 4, 8, 8])
    assert "decoder.conv1.weight_g" in keys(folder / "vae" / "diffusion_pytorch_model.safetensors")
