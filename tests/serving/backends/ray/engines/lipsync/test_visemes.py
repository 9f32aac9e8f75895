import pytest

from serving.backends.ray.engines.lipsync.visemes import TABLE, VOWELS, is_stressed, letters, shapes


@pytest.mark.parametrize("symbol", ["m", "b", "p", "pʰ", "bʰ", "mː", "p̪", "ˈm"])
def test_bilabials_press_the_lips(symbol: str) -> None:
    assert [shape.press for shape in shapes(symbol)] == [1.0]


@pytest.mark.parametrize("symbol", ["u", "uː", "ʊ", "o", "oː", "ɔ", "w", "y", "ũ"])
def test_rounded_sounds_draw_the_mouth_together(symbol: str) -> None:
    assert all(shape.width <= -0.5 and shape.pout > 0.5 for shape in shapes(symbol))


@pytest.mark.parametrize("symbol", ["i", "iː", "e", "ɛ", "ɪ"])
def test_front_vowels_spread_the_mouth(symbol: str) -> None:
    assert shapes(symbol)[0].width >= 0.5


@pytest.mark.parametrize("symbol", ["f", "v", "ʋ"])
def test_labiodentals_bring_the_lip_to_the_teeth(symbol: str) -> None:
    assert shapes(symbol)[0].tuck == 1.0


def test_open_a_is_the_widest_of_all_shapes() -> None:
    assert max(TABLE.values(), key=lambda shape: shape.jaw) == TABLE["a"]


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("aɪ", ["a", "ɪ"]),
        ("ˈeɪ", ["e", "ɪ"]),
        ("tʃ", ["t", "ʃ"]),
        ("tʃʰ", ["t", "ʃ"]),
        ("ɑ̃", ["ɑ"]),
        ("əʊ", ["ə", "ʊ"]),
        ("ɾʲ", ["ɾ"]),
        ("kʷ", ["k"]),
        ("ɖʰ", ["ɖ"]),
        ("", []),
        ("_:", []),
        ("ː", []),
        ("|", []),
    ],
)
def test_a_symbol_is_read_as_its_base_letters(symbol: str, expected: list[str]) -> None:
    assert letters(symbol) == expected


def test_every_letter_espeak_uses_in_its_main_languages_has_a_shape() -> None:
    used = "abdefhijklmnoprstuvwxyzæçðøŋœɐɑɒɔəɚɛɜɟɡɣɥɨɪɫɬɭɯɲɳɹɽɾʀʁʂʃʈʊʋʌʎʏʒʔβθχɕʑɖɖɦɵʉɤʐ"
    assert [letter for letter in used if not letters(letter)] == []


def test_vowels_have_shapes_and_stress_marks_are_seen() -> None:
    assert set(TABLE) >= VOWELS
    assert is_stressed("ˈaɪ")
    assert not is_stressed("aɪ")
