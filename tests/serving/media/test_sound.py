"""Sound files of sound files: the copy sounds and lasts as its master, pieces lie where the recording has them."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from serving.errors import EngineFailed
from serving.media.ffmpeg import decode_audio
from serving.media.probe import probe_file
from serving.media.sound import PIECE_RATE_HZ, cut_pieces, encode_m4a

RATE = 48_000


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Six seconds of stereo noise that is louder every second."""
    levels = np.repeat(np.arange(1, 7) / 20, RATE)
    noise = np.random.default_rng(2).normal(0, 1, (RATE * 6, 2)) * levels[:, None]
    soundfile.write(tmp_path / "take.wav", noise, RATE)
    return tmp_path / "take.wav"


async def test_a_copy_lasts_as_long_plays_while_it_arrives_and_is_repeatable(recording: Path, tmp_path: Path) -> None:
    copies = [tmp_path / "one.m4a", tmp_path / "two.m4a"]
    for copy in copies:
        await encode_m4a(recording, copy)
    info = probe_file(copies[0])
    audio = info.first("audio")
    assert audio is not None
    assert (audio.codec, audio.sample_rate_hz, audio.channels) == ("aac", RATE, 2)
    assert audio.duration_s == pytest.approx(6, abs=0.03)
    assert info.faststart
    assert copies[0].read_bytes() == copies[1].read_bytes()


async def test_a_copy_begins_when_its_master_does(tmp_path: Path) -> None:
    samples = np.zeros(RATE)
    samples[RATE // 2 : RATE // 2 + 480] = 0.8
    soundfile.write(tmp_path / "click.wav", samples, RATE)
    await encode_m4a(tmp_path / "click.wav", tmp_path / "click.m4a")
    heard = np.abs(await decode_audio(tmp_path / "click.m4a", RATE))
    assert np.flatnonzero(heard > 0.4)[0] == pytest.approx(RATE // 2, abs=100)


async def test_pieces_are_where_the_recording_has_them_and_of_exact_length(recording: Path, tmp_path: Path) -> None:
    spans = [(0.0, 2.0), (2.0, 5.52), (5.52, 6.04)]
    targets = [tmp_path / f"{number}.wav" for number in range(3)]
    await cut_pieces(recording, spans, targets)
    pieces = [soundfile.read(target)[0] for target in targets]
    assert [piece.shape for piece in pieces] == [(round((b - a) * PIECE_RATE_HZ),) for a, b in spans]
    whole = await decode_audio(recording, PIECE_RATE_HZ)
    joined = np.concatenate(pieces)
    assert np.corrcoef(joined[: len(whole)], whole)[0, 1] > 0.99
    assert np.abs(joined[len(whole) :]).max() < 0.01


async def test_what_is_no_sound_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(EngineFailed):
        await cut_pieces(tmp_path / "text.wav", [(0.0, 1.0)], [tmp_path / "piece.wav"])
