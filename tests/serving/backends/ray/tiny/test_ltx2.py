"""The tiny LTX-2 checkpoint has the published layout."""

import json
from pathlib import Path

from serving.backends.ray.tiny.ltx2 import make
from tests.serving.backends.ray.tiny.made import made_twice


def test_a_checkpoint_is_the_same_each_time_and_has_the_parts_of_picture_and_sound(tmp_path: Path) -> None:
    folder, _ = made_twice(make, tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "LTX2Pipeline"
    assert index["connectors"] == ["ltx2", "LTX2TextConnectors"]
    assert {"vae", "audio_vae", "vocoder", "transformer", "text_encoder", "tokenizer", "scheduler"} <= set(index)


def test_frames_sizes_and_rates_follow_the_published_rules(tmp_path: Path) -> None:
    make(tmp_path)
    vae, audio, vocoder = (
        json.loads((tmp_path / part / "config.json").read_text()) for part in ("vae", "audio_vae", "vocoder")
    )
    assert (vae["spatial_compression_ratio"], vae["temporal_compression_ratio"]) == (32, 8)
    assert (audio["sample_rate"], audio["mel_hop_length"], vocoder["output_sampling_rate"]) == (16_000, 160, 24_000)
