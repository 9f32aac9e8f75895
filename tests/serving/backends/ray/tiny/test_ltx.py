"""The tiny LTX-Video checkpoint has the published layout."""

import json
from pathlib import Path

from serving.backends.ray.tiny import TINY
from serving.backends.ray.tiny.ltx import make
from tests.serving.backends.ray.tiny.made import made_twice


def test_a_checkpoint_is_the_same_each_time_for_words_and_for_pictures(tmp_path: Path) -> None:
    folder, _ = made_twice(make, tmp_path)
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == "LTXPipeline"
    assert TINY["ltx_video"] == TINY["ltx_video_i2v"]


def test_the_tokenizer_is_the_published_ones_kind_of_file(tmp_path: Path) -> None:
    make(tmp_path)
    found = {path.name for path in (tmp_path / "tokenizer").iterdir()}
    assert found == {"spiece.model", "special_tokens_map.json", "tokenizer_config.json"}
