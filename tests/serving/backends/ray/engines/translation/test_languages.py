"""Language tags and the codes that translators have for them."""

import pytest

from serving.backends.ray.engines.translation.languages import THREE_LETTERS, code_of, tags_of
from serving.errors import BadInput

M2M = ["ar", "en", "fr", "hi", "jv", "no", "pt", "tl", "zh"]
FLORES = [
    "arb_Arab", "arb_Latn", "eng_Latn", "hin_Deva", "kas_Arab", "kas_Deva", "nob_Latn", "nno_Latn", "por_Latn",
    "srp_Cyrl", "tgl_Latn", "zho_Hans", "zho_Hant", "sat_Olck",
]  # fmt: skip
SEAMLESS = ["arb", "cmn", "cmn_Hant", "eng", "hin", "pes", "tgl", "zlm"]


@pytest.mark.parametrize(
    ("tag", "known", "code"),
    [
        ("hi", M2M, "hi"),
        ("hin", M2M, "hi"),
        ("pt-br", M2M, "pt"),
        ("nb", M2M, "no"),
        ("fil", M2M, "tl"),
        ("zh-Hant", M2M, "zh"),
        ("en-us", FLORES, "eng_Latn"),
        ("hi", FLORES, "hin_Deva"),
        ("ar", FLORES, "arb_Arab"),
        ("zh", FLORES, "zho_Hans"),
        ("zh-tw", FLORES, "zho_Hant"),
        ("zh-Hant", FLORES, "zho_Hant"),
        ("ks", FLORES, "kas_Arab"),
        ("ks-Deva", FLORES, "kas_Deva"),
        ("no", FLORES, "nob_Latn"),
        ("nn", FLORES, "nno_Latn"),
        ("sat", FLORES, "sat_Olck"),
        ("zh", SEAMLESS, "cmn"),
        ("zh-hk", SEAMLESS, "cmn_Hant"),
        ("fa", SEAMLESS, "pes"),
        ("hi-in", SEAMLESS, "hin"),
    ],
)
def test_a_tag_has_a_code(tag: str, known: list[str], code: str) -> None:
    assert code_of(tag, known, "source_language") == code


def test_an_unknown_language_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(BadInput, match=r"target_language: the model does not know 'eo': use one of ar, en, .*zh"):
        code_of("eo", FLORES, "target_language")


def test_codes_are_told_as_tags() -> None:
    assert tags_of(SEAMLESS) == ["ar", "en", "fa", "hi", "tl", "zh", "zlm"]


def test_the_table_has_every_two_letter_language_of_the_families() -> None:
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

    flores = {code.partition("_")[0] for code in FAIRSEQ_LANGUAGE_CODES}
    assert set(THREE_LETTERS.values()) <= flores
    assert all(
        code_of(tag, FAIRSEQ_LANGUAGE_CODES, "x").partition("_")[0] == three for tag, three in THREE_LETTERS.items()
    )
