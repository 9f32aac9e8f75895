"""The tiny LTX-Video checkpoint has the published layout."""

import json
from pathlib import Path

from serving.backends.ray.tiny.ltx import make, make_i2v
from tests.serving.backends.ray.tiny.made import digests, made_twice


def test_a_checkpoint_is_the_same_each_time_for_words_and_for_pictures(tmp_path: Path) -> None:
    folder, changes = made_twice(make, tmp_path)
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == "LTXPipeline"
    (tmp_path / "shown").mkdir()
    assert make_i2v(tmp_path / "shown")["options"] == {**changes["options"], "pipeline": "LTXImageToVideoPipeline"}
    assert digests(tmp_path / "shown") == digests(folder)


def test_the_tokenizer_is_the_published_ones_kind_of_file(tmp_path: Path) -> None:
    make(tmp_path)
    found = {path.name for path in (tmp_path / "tokenizer").iterdir()}
    assert found == {"spiece.model", "special_tokens_map.json", "tokenizer_config.json"}
