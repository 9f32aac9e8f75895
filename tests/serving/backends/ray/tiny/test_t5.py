"""The tiny T5 tokenizer is SentencePiece's, and a pipeline that is saved beside it leaves its files alone."""

from pathlib import Path
from types import SimpleNamespace

from serving.backends.ray.tiny import t5


def test_a_tokenizer_says_how_much_it_reads_and_ends_every_text(tmp_path: Path) -> None:
    tokenizer = t5.tokenizer(tmp_path / "tokenizer", 12)
    tokens = tokenizer("a red fox").input_ids
    assert tokens[-1] == tokenizer.eos_token_id == 1
    assert tokenizer.decode(tokens, skip_special_tokens=True) == "a red fox"
    assert tokenizer.model_max_length == 12


def test_words_that_it_does_not_know_are_one_unknown_each(tmp_path: Path) -> None:
    tokenizer = t5.tokenizer(tmp_path / "tokenizer", 12)
    assert tokenizer("狐").input_ids[-2] == tokenizer.unk_token_id


def test_saving_a_pipeline_leaves_the_tokenizers_files(tmp_path: Path) -> None:
    t5.tokenizer(tmp_path / "tokenizer", 12)
    before = {path.name: path.read_bytes() for path in (tmp_path / "tokenizer").iterdir()}

    def save(folder: Path, safe_serialization: bool) -> None:
        assert safe_serialization
        (folder / "tokenizer" / "tokenizer.json").write_text("{}")
        (folder / "tokenizer" / "tokenizer_config.json").write_text("{}")

    t5.save_beside(SimpleNamespace(save_pretrained=save), tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / "tokenizer").iterdir()} == before
