"""Verification: a good programme passes, and every fault is found and named."""

from pathlib import Path

import numpy as np
import pytest

from serving.errors import EngineFailed
from serving.media.ffmpeg import run_ffmpeg
from serving.media.loudness import Loudness
from serving.media.verify import (
    Check,
    Report,
    caption_checks,
    loudness_checks,
    picture_checks,
    verify_programme,
    verify_sound,
)

SRT = "1\n00:00:00,200 --> 00:00:01,200\nHello\n\n2\n00:00:01,500 --> 00:00:02,500\nthere\n"
VTT = "WEBVTT\n\n00:00:00.200 --> 00:00:01.200\nHello\n\n00:00:01.500 --> 00:00:02.500\nthere\n"


async def programme(
    path: Path, *, picture: str = "testsrc2=size=128x96:rate=25", options: tuple[str, ...] = ()
) -> Path:
    srt = path.with_suffix(".srt")
    srt.write_text(SRT)
    await run_ffmpeg(
        ["-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000", "-i", str(srt),
         "-af", "volume=3.5dB", "-map", "0", "-map", "1", "-map", "2", "-c:v", "libx264", "-pix_fmt", "yuv420p",
         "-g", "10", "-c:a", "aac", "-c:s", "mov_text", "-movflags", "+faststart", *options, "-t", "4", str(path)]
    )  # fmt: skip
    return path


def failed(report: Report) -> set[str]:
    return {check.name for check in report.failed}


async def test_a_good_programme_passes_every_check(tmp_path: Path) -> None:
    report = await verify_programme(
        await programme(tmp_path / "film.mp4"),
        audio_duration_s=4.0,
        captions={"srt": SRT, "vtt": VTT},
        loudness_lufs=-17.6,
    )
    assert failed(report) == set()
    assert len(report.checks) == 12
    report.raise_if_failed()


@pytest.mark.parametrize(
    ("picture", "options", "wrong"),
    [
        ("color=black:size=128x96:rate=25", (), {"picture is visible", "picture moves"}),
        ("color=gray:size=128x96:rate=25", (), {"picture moves"}),
        ("testsrc2=size=128x96:rate=25", ("-pix_fmt", "yuv444p"), {"video stream"}),
        ("testsrc2=size=128x96:rate=25", ("-ar", "44100"), {"audio stream"}),
        ("testsrc2=size=128x96:rate=25", ("-movflags", "0"), {"faststart"}),
        ("testsrc2=size=128x96:rate=25", ("-sn",), {"subtitle stream"}),
        ("testsrc2=size=128x96:rate=25", ("-af", "volume=-20dB"), {"loudness"}),
        ("testsrc2=size=128x96:rate=25", ("-af", "volume=18dB"), {"loudness", "true peak"}),
    ],
    ids=["black", "frozen", "pixels", "rate", "index-last", "no-subtitles", "quiet", "loud"],
)
async def test_each_fault_is_found(tmp_path: Path, picture: str, options: tuple[str, ...], wrong: set[str]) -> None:
    path = await programme(tmp_path / "film.mp4", picture=picture, options=options)
    report = await verify_programme(path, audio_duration_s=4.0, loudness_lufs=-17.6)
    assert failed(report) == wrong


async def test_a_wrong_length_is_found(tmp_path: Path) -> None:
    path = await programme(tmp_path / "film.mp4")
    assert failed(await verify_programme(path, audio_duration_s=5.0, loudness_lufs=None)) == {"duration"}


@pytest.mark.parametrize(
    ("captions", "wrong"),
    [
        ({"srt": SRT, "vtt": VTT}, set()),
        ({"srt": ""}, {"srt captions"}),
        ({"vtt": "nonsense"}, {"vtt captions"}),
        ({"srt": SRT.replace("01,500", "00,900")}, {"srt captions"}),
        ({"srt": SRT.replace("there", " ")}, {"srt captions"}),
        ({"srt": SRT.replace("00:00:01,500 --> 00:00:02,500", "00:01:01,500 --> 00:01:02,500")}, {"srt captions"}),
        ({"srt": SRT, "vtt": VTT.rpartition("\n\n")[0]}, {"caption files agree"}),
    ],
    ids=["good", "empty", "nonsense", "overlap", "blank-cue", "after-the-end", "fewer-cues"],
)
def test_caption_faults_are_found(captions: dict[str, str], wrong: set[str]) -> None:
    assert {check.name for check in caption_checks(captions, 4.0) if not check.ok} == wrong


@pytest.mark.parametrize(("lufs", "ok"), [(-15.1, True), (-17.0, True), (-14.9, False)])
def test_loudness_may_be_off_by_one_unit(lufs: float, ok: bool) -> None:
    assert loudness_checks(Loudness(lufs, 3.0, -2.0), -16.0)[0].ok is ok


def test_a_file_without_pictures_is_not_visible() -> None:
    assert not picture_checks([], moves=True)[0].ok
    assert picture_checks([np.full((4, 4), 90, np.uint8)], moves=True)[0].ok


def test_a_failed_report_names_what_was_measured_and_wanted() -> None:
    report = Report((Check("loudness", False, "-20 LUFS", "-16 LUFS within 1 LU"),))
    with pytest.raises(EngineFailed, match="loudness is -20 LUFS, wanted -16 LUFS"):
        report.raise_if_failed()
    assert report.as_facts()[0]["ok"] is False


async def sounds(folder: Path, *, wav: tuple[str, ...] = (), m4a: tuple[str, ...] = ()) -> dict[str, Path]:
    """Four seconds of a tone at -21 LUFS in both formats, with options of each."""
    files = {"wav": folder / "a.wav", "m4a": folder / "a.m4a"}
    tone = ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000", "-ac", "2", "-af", "volume=0dB", "-t", "4"]
    await run_ffmpeg([*tone, "-c:a", "pcm_s16le", *wav, str(files["wav"])])
    await run_ffmpeg([*tone, "-c:a", "aac", *m4a, str(files["m4a"])])
    return files


@pytest.mark.parametrize(
    ("wav", "m4a", "wrong"),
    [
        pytest.param((), (), set(), id="good"),
        pytest.param(("-c:a", "pcm_s24le"), (), {"wav audio stream"}, id="depth"),
        pytest.param((), ("-ar", "44100"), {"m4a audio stream"}, id="rate"),
        pytest.param((), ("-t", "3"), {"m4a duration"}, id="short"),
        pytest.param(("-af", "volume=-20dB"), (), {"wav loudness"}, id="quiet"),
        pytest.param((), ("-af", "volume=0"), {"m4a loudness"}, id="silent"),
        pytest.param(("-af", "volume=30dB"), (), {"wav loudness", "wav true peak"}, id="loud"),
    ],
)
async def test_each_fault_of_a_sound_is_found(
    tmp_path: Path, wav: tuple[str, ...], m4a: tuple[str, ...], wrong: set[str]
) -> None:
    files = await sounds(tmp_path, wav=wav, m4a=m4a)
    report = await verify_sound(files, duration_s=4.0, loudness_lufs=-21, captions={"srt": SRT})
    assert failed(report) == wrong
    assert len(report.checks) == 9
