"""The tiny Whispers have large-v3's layout in both formats."""

import json
from pathlib import Path

from serving.backends.ray.tiny.whisper import make_ctranslate2, make_transformers
from tests.serving.backends.ray.tiny.made import made_twice


def test_a_checkpoint_is_the_same_each_time_and_has_the_special_tokens_in_order(tmp_path: Path) -> None:
    folder, _ = made_twice(make_transformers, tmp_path)
    settings = json.loads((folder / "generation_config.json").read_text())
    start, first = settings["decoder_start_token_id"], settings["lang_to_id"]["<|en|>"]
    assert first == start + 1
    assert sorted(settings["lang_to_id"].values()) == list(range(first, first + 100))
    assert settings["task_to_id"] == {"translate": first + 100, "transcribe": first + 101}
    assert settings["no_timestamps_token_id"] == first + 105
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == first + 106 + 1501
    assert json.loads((folder / "preprocessor_config.json").read_text())["feature_size"] == 128


def test_ctranslate2s_files_are_those_of_the_published_conversion(tmp_path: Path) -> None:
    folder, _ = made_twice(make_ctranslate2, tmp_path)
    found = {path.name for path in folder.iterdir()}
    assert found == {"config.json", "model.bin", "preprocessor_config.json", "tokenizer.json", "vocabulary.json"}
    config = json.loads((folder / "config.json").read_text())
    assert len(config["lang_ids"]) == 100
    assert config["alignment_heads"] == [[1, 0], [1, 1]]
