"""Caption files of a programme."""

from pathlib import Path

import pytest
from PIL import ImageFont

from graphs.captions import CaptionCues, Spoken, cut_captions, laid_out, style_for, write_captions
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
    cues = await cut_captions([Spoken(words, "Asha")], "en")
    files = await write_captions(store, "film", cues, "en", VideoFormat())
    for ref, name in ((files.srt, "film.srt"), (files.vtt, "film.vtt"), (files.ass, "film.ass")):
        text = (await store.get_bytes(ref)).decode()
        assert "Hello" in text and "there." in text
        assert ref.name == name


async def test_no_words_are_an_error_and_not_an_empty_file() -> None:
    with pytest.raises(BadInput, match="no words"):
        await cut_captions([Spoken([])], "en")


async def cues_of(text: str) -> CaptionCues:
    words = [Word(text=word, start_s=at / 2, end_s=at / 2 + 0.4) for at, word in enumerate(text.split())]
    return CaptionCues.model_validate_json((await cut_captions([Spoken(words, "Asha")], "en")).model_dump_json())


async def test_cues_that_nobody_edited_look_as_they_were_cut() -> None:
    text = "So, what does a quiet room sound like? Oh, it is never quiet. There is a clock, a fridge, a bus far away."
    cues = await cues_of(text)
    shown = [laid_out(number, cue, "en") for number, cue in cues.cues.items()]
    assert [cue.text for cue in shown] == [cue.text for cue in cues.cues.values()]
    assert " ".join(cue.text for cue in shown) == text
    assert all(len(line) <= 42 for cue in shown for line in cue.line_texts)


async def test_an_edited_text_takes_the_time_of_the_words_it_had() -> None:
    cue = (await cues_of("Hello there.")).cues["1"]
    shown = laid_out("1", cue.model_copy(update={"text": "Good morning to you"}), "en")
    assert [word.text for word in shown.words] == ["Good", "morning", "to", "you"]
    assert [shown.words[0].start_s, shown.words[-1].end_s] == pytest.approx([0.0, 0.9])
    assert shown.speaker == "Asha"


@pytest.mark.parametrize("text", ["long words " * 20, "\u200b"], ids=["too long", "nothing to see"])
async def test_an_edited_text_that_cannot_be_shown_is_refused_with_its_number(text: str) -> None:
    cue = (await cues_of("Hello there.")).cues["1"]
    with pytest.raises(BadInput, match="caption 1 does not fit"):
        laid_out("1", cue.model_copy(update={"text": text}), "en")
