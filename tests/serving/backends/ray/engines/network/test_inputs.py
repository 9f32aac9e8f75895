"""Pictures, sound and texts of requests: what is wrong is named before a network sees it."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from serving.backends.ray.engines.network.inputs import check_sides, check_tokens, read_picture, read_sound
from serving.errors import BadInput, TooLarge


def picture(path: Path, width: int, height: int) -> Path:
    Image.new("RGB", (width, height), (10, 200, 30)).save(path, "PNG")
    return path


@pytest.mark.parametrize(("width", "height"), [(1, 1), (20_000, 16), (8, 200)], ids=["1x1", "20000", "thin"])
def test_a_picture_out_of_bounds_is_refused_with_them(tmp_path: Path, width: int, height: int) -> None:
    with pytest.raises(BadInput) as caught:
        read_picture(picture(tmp_path / "a.png", width, height), "image")
    assert str(caught.value) == (
        f"image: the picture is {width}x{height} pixels: each side must have 16 to 8192 pixels"
    )


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", 16, 16)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 8192, 2_000_000_000)
    path.write_bytes(data)
    with pytest.raises(BadInput):
        read_picture(path, "image")


@pytest.mark.parametrize(
    ("data", "problem"),
    [(b"GIF89a" + bytes(40), "not a picture"), (b"", "not a picture")],
    ids=["another format", "empty"],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, data: bytes, problem: str) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(BadInput, match=problem):
        read_picture(tmp_path / "a", "image")


def test_a_cut_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.effect_noise((64, 64), 50).save(path, "PNG")
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(BadInput, match="damaged"):
        read_picture(path, "image")


def test_sound_with_samples_that_are_no_numbers_is_refused(tmp_path: Path) -> None:
    samples = np.zeros(16_000, np.float32)
    samples[8000:8010] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, 16_000, "FLOAT")
    with pytest.raises(BadInput, match=r"audio: the sound holds samples that are no numbers, the first at 0\.5"):
        read_sound(tmp_path / "a.wav", "audio", 16_000, most_s=10)


def test_sound_is_read_at_the_rate_asked_for(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full((48_000, 2), 0.25, np.float32), 48_000)
    samples = read_sound(tmp_path / "a.wav", "audio", 16_000, most_s=10)
    assert (samples.dtype, samples.shape) == (np.float32, (16_000,))
    assert samples[4000:12_000] == pytest.approx(0.25, abs=0.01)


def test_sound_too_short_or_too_long_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(100, np.float32), 16_000)
    with pytest.raises(BadInput, match="give at least"):
        read_sound(tmp_path / "a.wav", "audio", 16_000, most_s=10)
    soundfile.write(tmp_path / "b.wav", np.zeros(48_000, np.float32), 16_000)
    with pytest.raises(TooLarge, match="longer than 1 s"):
        read_sound(tmp_path / "b.wav", "audio", 16_000, most_s=1)


def test_a_text_beyond_the_tokenizers_limit_is_told_and_not_cut() -> None:
    check_tokens(77, 77, "prompt")
    with pytest.raises(BadInput) as caught:
        check_tokens(154, 77, "prompt")
    assert str(caught.value) == (
        "prompt: the text has 154 tokens, and the model reads 77: shorten it to about 50 % of its length"
    )


def test_sides_that_the_network_cannot_make_are_refused_with_the_nearest() -> None:
    check_sides(512, 768, 8)
    with pytest.raises(BadInput) as caught:
        check_sides(512, 770, 8)
    assert (caught.value.field, caught.value.fix) == ("height", "use 768")
