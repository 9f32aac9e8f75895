"""Texts in the characters of a network."""

import pytest

from serving.backends.ray.engines.voices.spelling import spell
from serving.errors import BadInput

LETTERS = frozenset(" '-abcdefghijklmnopqrstuvwxyzü")


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        pytest.param("Hello World", ["hello world"], id="capitals"),
        pytest.param("Stop!  Go on, then.", ["stop ", "go on then "], id="punctuation is a space, once"),
        pytest.param("don’t", ["don't"], id="quotes that are apostrophes"),
        pytest.param("für", ["für"], id="composed"),
        pytest.param("fu\u0308r", ["für"], id="decomposed"),
        pytest.param("o\ufb03ce", ["office"], id="ligatures"),
        pytest.param("ab\u200dc", ["abc"], id="joiners leave no trace"),
    ],
)
def test_text_is_spelled_in_the_letters_of_the_network(text: str, spelled: list[str]) -> None:
    assert ["".join(piece.symbols) for piece in spell(text, LETTERS)] == spelled


def test_words_are_as_their_author_wrote_them_and_stand_where_their_letters_are() -> None:
    (piece,) = spell("“Well” — said he", LETTERS)
    spoken = {word.text: "".join(piece.symbols[word.first : word.last]).strip() for word in piece.words}
    assert spoken == {"“Well” —": "well", "said": "said", "he": "he"}


def test_what_is_spoken_and_not_known_is_refused_by_name() -> None:
    with pytest.raises(BadInput) as caught:
        spell("7 days, 24 hours, ñ and ß and ж", LETTERS)
    assert "'7' (DIGIT SEVEN), '2' (DIGIT TWO), '4' (DIGIT FOUR)" in str(caught.value)
    assert "and 1 more" in str(caught.value)


def test_a_network_of_romanised_text_says_what_to_do_with_other_scripts() -> None:
    with pytest.raises(BadInput) as caught:
        spell("привет", LETTERS, romanised=True)
    assert "romanise" in str(caught.value.fix)


def test_a_network_without_a_space_runs_words_together() -> None:
    (piece,) = spell("ab, cd", frozenset("abcd"))
    assert piece.symbols == ("a", "b", "c", "d")


@pytest.mark.parametrize("text", ["...", "—", "🙂"])
def test_a_text_without_speech_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="can be spoken"):
        spell(text, LETTERS)
