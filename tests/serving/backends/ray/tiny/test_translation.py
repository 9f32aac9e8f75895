"""The tiny translators have the files of the published ones."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from serving.backends.ray.tiny.translation import make_m2m100, make_marian, make_nllb, make_seamless
from tests.serving.backends.ray.tiny.made import made_twice


@pytest.mark.parametrize(
    ("make", "kind", "tokenizer"),
    [
        (make_marian, "marian", {"source.spm", "target.spm", "vocab.json"}),
        (make_m2m100, "m2m_100", {"sentencepiece.bpe.model", "vocab.json"}),
        (make_nllb, "m2m_100", {"tokenizer.json"}),
        (make_seamless, "seamless_m4t_v2", {"tokenizer.json", "preprocessor_config.json"}),
    ],
    ids=["Marian", "M2M100", "NLLB", "Seamless"],
)
def test_a_checkpoint_is_the_same_each_time_and_has_the_familys_files(
    tmp_path: Path, make: Callable[[Path], Mapping[str, Any]], kind: str, tokenizer: set[str]
) -> None:
    folder, _ = made_twice(make, tmp_path)
    found = {path.name for path in folder.iterdir()}
    assert found >= tokenizer | {"model.safetensors", "config.json", "generation_config.json", "tokenizer_config.json"}
    assert json.loads((folder / "config.json").read_text())["model_type"] == kind


def test_seamless_knows_its_languages_by_number(tmp_path: Path) -> None:
    make_seamless(tmp_path)
    told = json.loads((tmp_path / "generation_config.json").read_text())["text_decoder_lang_to_code_id"]
    vocabulary = json.loads((tmp_path / "tokenizer.json").read_text())["added_tokens"]
    assert {f"__{code}__": number for code, number in told.items()}.items() <= {
        token["content"]: token["id"] for token in vocabulary
    }.items()
