"""Voices by name, languages with and without a region."""

import pytest

from serving.backends.ray.engines.voices.choice import check_language, choose
from serving.errors import BadInput, Unsupported
from serving.protocol.tasks import SpeechRequest
from serving.repository.load import load_repository
from serving.repository.model import Model
from tests.servers.tiny import REPOSITORY, changed


@pytest.fixture(scope="module")
def model() -> Model:
    return load_repository([REPOSITORY]).get("mms_tts_eng")


def test_a_voice_is_found_by_its_name(model: Model) -> None:
    assert choose(model, SpeechRequest(text="a", voice="narrator")) is model.card.voices["narrator"]


def test_an_unknown_voice_is_refused_with_the_nearest(model: Model) -> None:
    with pytest.raises(BadInput, match=r"no voice 'narator'.*did you mean 'narrator'"):
        choose(model, SpeechRequest(text="a", voice="narator"))


@pytest.mark.parametrize(
    ("language", "known", "expected"),
    [("en", ["en"], "en"), ("en-gb", ["en"], "en"), ("en-gb", ["en", "en-GB"], "en-GB")],
)
def test_a_language_is_the_nearest_that_the_model_speaks(
    model: Model, language: str, known: list[str], expected: str
) -> None:
    assert check_language(changed(model, languages=known), language) == expected


def test_an_unknown_language_is_refused_with_those_that_there_are(model: Model) -> None:
    with pytest.raises(Unsupported, match=r"mms_tts_eng does not speak 'fr'.*There are: en"):
        check_language(model, "fr")
