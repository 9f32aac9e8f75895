"""Typefaces: every script gets a font that has its letters."""

import pytest
from PIL import ImageFont

from serving.media.typefaces import FONTS_FOLDER, family_of, font_file, script_of, unsupported_scripts

SAMPLES = {
    "latin": "Žluťoučký kůň",
    "devanagari": "हिमालय की पुकार",
    "tamil": "வணக்கம்",
    "telugu": "నమస్కారం",
    "kannada": "ನಮಸ್ಕಾರ",
    "malayalam": "നമസ്കാരം",
    "bengali": "নমস্কার",
    "gujarati": "નમસ્તે",
    "gurmukhi": "ਸਤ ਸ੍ਰੀ ਅਕਾਲ",
    "arabic": "مرحبا",
    "hebrew": "שלום",
    "thai": "สวัสดี",
}


@pytest.mark.parametrize("script", SAMPLES)
def test_the_shipped_font_of_a_script_draws_its_letters(script: str) -> None:
    text = SAMPLES[script]
    assert script_of(text).name == script
    font = ImageFont.truetype(str(font_file(text)), 40)
    missing = font.getmask("\U0010fffd").getbbox()
    shapes = {bytes(font.getmask(letter)) for letter in set(text) if letter.isalpha()}
    assert len(shapes) > 2
    assert bytes(font.getmask("\U0010fffd")) not in shapes or missing is None
    assert not unsupported_scripts(text)


def test_greek_and_cyrillic_are_in_the_latin_family() -> None:
    assert family_of("Привет") == family_of("Γειά") == family_of("123 !?") == "Inter"


def test_scripts_without_a_shipped_font_are_told_and_still_get_one() -> None:
    assert unsupported_scripts("你好 world") == {"cjk"}
    assert font_file("你好").is_file()
    assert family_of("你好") == "Noto Sans CJK SC"


def test_the_main_script_decides() -> None:
    assert script_of("AI और हिमालय की पुकार").name == "devanagari"
    assert script_of("").name == "latin"


def test_fonts_come_with_their_licence_and_stay_small() -> None:
    assert "SIL OPEN FONT LICENSE Version 1.1" in (FONTS_FOLDER / "OFL.txt").read_text()
    assert sum(path.stat().st_size for path in FONTS_FOLDER.iterdir()) < 3_000_000
