"""Texts in the phonemes of Coqui's networks."""

import pytest

from serving.backends.ray.engines.coqui.phonemes import phonemize, piece_of
from serving.backends.ray.engines.espeak_text import clauses
from serving.errors import BadInput, Unsupported

SYMBOLS = frozenset(" ,.!?;:ˈˌːabdefhijklmnoprstuvwzæðŋɐɑɔəɚɛɜɡɪɹʃʊʌʒθᵻ")


def test_sentences_are_phonemized_with_their_punctuation_and_words() -> None:
    first, second = phonemize("Hello there, my cat. Two dogs!", "en", SYMBOLS)
    assert "".join(first.symbols) == "həlˈoʊ ðˈɛɹ, maɪ kˈæt."
    assert "".join(second.symbols) == "tˈuː dˈɑːɡz!"
    assert ["".join(first.symbols[word.first : word.last]) for word in first.words] == [
        "həlˈoʊ",
        "ðˈɛɹ,",
        "maɪ",
        "kˈæt.",
    ]
    assert [word.text for word in first.words] == ["Hello", "there,", "my", "cat."]


def test_words_that_espeak_runs_together_have_no_times() -> None:
    (clause,) = clauses("a cat of the house")
    piece = piece_of(clause, ["ɐ kˈæt ʌvðə hˈaʊs"], [], SYMBOLS)
    assert piece.words == ()
    assert "".join(piece.symbols) == "ɐ kˈæt ʌvðə hˈaʊs"


def test_phonemes_that_the_network_does_not_know_are_refused_by_name() -> None:
    with pytest.raises(BadInput, match="no symbol for 'x', 'ç'"):
        piece_of(clauses("loch ich")[0], ["lˈɒx ˈɪç".replace("ɒ", "ɔ")], [], SYMBOLS)


def test_marks_that_refine_a_phoneme_may_be_missing() -> None:
    piece = piece_of(clauses("button")[0], ["bˈʌtn̩"], [], SYMBOLS)
    assert "".join(piece.symbols) == "bˈʌtn"


def test_a_language_that_nobody_can_pronounce_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="cannot pronounce 'tlh-none'"):
        phonemize("Hello", "tlh-none", SYMBOLS)
