"""Pronunciations: parts of words, IPA and letters to ARPAbet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.backends.ray.engines.pocketsphinx_words import from_ipa, from_letters, parts_of

ARPABET = set(
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH".split()  # noqa: SIM905 (readable as it is)
)


@pytest.mark.parametrize(
    ("said", "parts"),
    [
        ("Screen.", ["screen"]),
        ("it's", ["it's"]),
        ("state-of-the-art", ["state", "of", "the", "art"]),
        ("$42.50", ["$42.50"]),
        ("3.5%", ["3.5", "percent"]),
        ("&", ["and"]),
        ("—", []),
    ],
)
def test_words_are_looked_up_by_their_parts(said: str, parts: list[str]) -> None:
    assert parts_of(said) == parts


@pytest.mark.parametrize(
    ("ipa", "phones"),
    [
        (["ɹ", "ˈɑː", "v", "i"], "R AA V IY"),
        (["tʃ", "ˈaɪ", "l", "d"], "CH AY L D"),
        (["n", "ˈoʊ", "θ", "ɪ", "ŋ"], "N OW TH IH NG"),
        (["?", "ˈ"], ""),
    ],
)
def test_ipa_becomes_arpabet(ipa: list[str], phones: str) -> None:
    assert from_ipa(ipa) == phones


@given(st.text(max_size=30))
def test_letters_always_give_some_known_phones(word: str) -> None:
    phones = from_letters(word).split()
    assert phones
    assert set(phones) <= ARPABET
    assert set(from_ipa(word).split()) <= ARPABET
