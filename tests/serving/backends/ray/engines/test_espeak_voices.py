"""Voices and languages: the card is checked at load, wrong names are answered with the nearest right one."""

from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.backends.ray.engines.espeak_voices import choose, load_voices
from serving.errors import BadInput, Unsupported
from serving.repository.model import Model, ModelCard


def model(**changes: Any) -> Model:
    card = {
        "description": "test",
        "task": "speech",
        "backend": "ray",
        "engine": "espeak",
        "license": {"name": "GPL-3.0-or-later", "commercial_use": True},
        "source": {"uri": "builtin:test"},
        "languages": ["en", "en-us", "hi", "es"],
        "voices": {
            "asha": {"language": "en-in", "gender": "female", "options": {"variant": "f2"}},
            "leo": {"language": "en-us", "gender": "male", "options": {"variant": "klatt4"}},
        },
        **changes,
    }
    return Model("speech", Path("/models/speech"), ModelCard.model_validate(card), ModelConfig(), ())


@pytest.mark.parametrize(
    ("voice", "language", "expected"),
    [
        ("asha", "en", "en+f2"),
        ("leo", "en", "en-us+klatt4"),
        ("asha", "en-us", "en-us+f2"),
        ("asha", "en-AU", "en+f2"),
        ("leo", "hi", "hi+klatt4"),
        ("leo", "es-mx", "es-419+klatt4"),
    ],
)
def test_a_voice_speaks_its_own_accent_or_the_language_asked_for(voice: str, language: str, expected: str) -> None:
    speech = model()
    assert choose(speech, load_voices(speech), voice, language).espeak_voice == expected


def test_an_unknown_voice_is_answered_with_the_nearest_and_all_names() -> None:
    speech = model()
    with pytest.raises(BadInput, match=r"voice: there is no voice 'Aasha': did you mean 'asha'\? Voices: asha, leo"):
        choose(speech, load_voices(speech), "Aasha", "en")


def test_an_unknown_language_is_answered_with_the_languages() -> None:
    speech = model()
    with pytest.raises(Unsupported, match=r"language: .*'ja'.*Languages: en, en-us, hi, es"):
        choose(speech, load_voices(speech), "asha", "ja")


def test_a_wrong_option_names_file_and_field() -> None:
    broken = {"asha": {"language": "en", "gender": "female", "options": {"variant": "f2", "pitch": 400}}}
    with pytest.raises(BadInput, match=r"speech/model\.yaml:voices\.asha\.options\.pitch"):
        load_voices(model(voices=broken))


def test_a_language_espeak_is_not_set_up_for_is_refused_at_load() -> None:
    with pytest.raises(BadInput, match=r"model\.yaml:languages.*'tlh'"):
        load_voices(model(languages=["en", "tlh"]))
