"""Language tags and the codes that Whisper has for them."""

import pytest

from serving.backends.ray.engines.whisper.languages import WHISPER_LANGUAGES, tag_of, whisper_code
from serving.errors import BadInput


@pytest.mark.parametrize(
    ("tag", "code"),
    [("en", "en"), ("pt-br", "pt"), ("zh-Hant", "zh"), ("jv", "jw"), ("fil", "tl"), ("nb", "no"), ("yue", "yue")],
)
def test_a_tag_has_a_code(tag: str, code: str) -> None:
    assert whisper_code(tag, WHISPER_LANGUAGES) == code


def test_the_code_of_javanese_is_told_as_its_tag() -> None:
    assert [tag_of(code) for code in ("jw", "en")] == ["jv", "en"]


def test_an_unknown_language_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(BadInput, match=r"language: the model does not know 'hi': leave it out .* use one of de, en"):
        whisper_code("hi", ["en", "de"])


def test_the_languages_are_those_of_the_library() -> None:
    from faster_whisper.tokenizer import _LANGUAGE_CODES

    assert set(WHISPER_LANGUAGES) == set(_LANGUAGE_CODES)
    assert len(WHISPER_LANGUAGES) == 100
