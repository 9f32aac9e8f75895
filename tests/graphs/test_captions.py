"""Caption files of a programme."""

from pathlib import Path

import pytest
from PIL import ImageFont

from graphs.captions import Spoken, style_for, write_captions
from graphs.inputs import VideoFormat
from serving.artifacts.store import ArtifactStore
from serving.errors import BadInput
from serving.media.typefaces import font_file
from serving.protocol.tasks import Word


@pytest.mark.parametrize(
    ("width", "height"),
    [(1280, 720), (1920, 1080), (720, 1280), (1080, 1080), (2048, 858), (128, 4096), (4096, 128)],
)
def test_a_line_of_42_columns_fits_every_picture(width: int, height: int) -> None:
    style = style_for(VideoFormat(width=width, height=height))
    line = "The quick brown fox jumps over the lazy dog"[:42]
    font = ImageFont.truetype(str(font_file(line)), max(1, style.font_px))
    assert font.getlength(line) <= 0.94 * width
    assert 2.5 * style.font_px + style.baseline_px <= height


async def test_the_three_files_hold_the_same_words(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path.as_uri(), tmp_path / "cache")
    words = [Word(text=text, start_s=at, end_s=at + 0.4) for at, text in enumerate(["Hello", "there."])]
    files = await write_captions(store, "film", [Spoken(words, "Asha")], "en", VideoFormat())
    for ref, name in ((files.srt, "film.srt"), (files.vtt, "film.vtt"), (files.ass, "film.ass")):
        text = (await store.get_bytes(ref)).decode()
        assert "Hello" in text and "there." in text
        assert ref.name == name


async def test_no_words_are_an_error_and_not_an_empty_file(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path.as_uri(), tmp_path / "cache")
    with pytest.raises(BadInput, match="no words"):
        await write_captions(store, "film", [Spoken([])], "en", VideoFormat())
