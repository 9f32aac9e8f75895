"""What differs between translators: how each marks languages and ends."""

import json
from pathlib import Path
from typing import Any

import pytest

from serving.backends.call import Call
from serving.backends.ray.engines.translation.families import M2m100, Marian, Nllb, Seamless, family_of
from serving.errors import BadInput
from serving.protocol.tasks import TranslationRequest
from tests.servers.tiny import tiny_model


def folder_of(name: str) -> Path:
    return Path(tiny_model(name).card.source.uri.removeprefix("file:"))


@pytest.mark.parametrize(
    ("name", "family"),
    [("opus_mt_en_hi", Marian), ("m2m100_418m", M2m100), ("nllb_600m", Nllb), ("seamless_m4t_v2", Seamless)],
)
def test_the_configuration_names_the_family(name: str, family: type) -> None:
    assert family_of(folder_of(name), name) is family


def test_other_architectures_and_damaged_configurations_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(BadInput, match="'t5': use one of m2m_100, marian, seamless_m4t_v2"):
        family_of(tmp_path, "some model")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BadInput, match=r"some model: config\.json is missing or damaged"):
        family_of(tmp_path, "some model")


def with_targets(folder: Path) -> None:
    """Two of the vocabulary's pieces become languages, as opus-mt-en-mul has them."""
    vocabulary: dict[str, int] = json.loads((folder / "vocab.json").read_text())
    for code, piece in zip((">>hin<<", ">>tam<<"), list(vocabulary)[40:42], strict=True):
        vocabulary[code] = vocabulary.pop(piece)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))


async def test_a_marian_of_several_targets_is_told_which_by_its_first_token(damaged: Any) -> None:
    engine = damaged("opus_mt_en_hi", with_targets)
    family = engine.family
    assert sorted(family.targets()) == ["hin", "tam"]
    assert family.codes("en", "ta") == ("en", "tam")
    assert family.encode("people", "en", "tam")[0] == family.tokenizer.encoder[">>tam<<"]
    request = TranslationRequest(texts=["people say"], source_language="en", target_language="ta")
    assert (await engine.run(request, Call())).texts[0]
    with pytest.raises(BadInput, match="target_language: the model does not know 'fr': use one of hi, ta"):
        family.codes("en", "fr")
    await engine.close()
