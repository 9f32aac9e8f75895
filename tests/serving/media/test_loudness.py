"""Loudness: the numbers of BS.1770 for signals whose loudness is known."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from serving.errors import BadInput, EngineFailed
from serving.media.loudness import Loudness, measure_loudness, parse_summary

SUMMARY = """
[Parsed_ebur128_0 @ 0x1] Summary:

  Integrated loudness:
    I:         -16.2 LUFS
    Threshold: -26.5 LUFS

  Loudness range:
    LRA:         3.4 LU
    Threshold: -36.5 LUFS

  True peak:
    Peak:       -1.5 dBFS
"""


def test_the_summary_is_read() -> None:
    assert parse_summary(SUMMARY) == Loudness(-16.2, 3.4, -1.5)


def test_the_last_of_several_summaries_counts() -> None:
    assert parse_summary(SUMMARY.replace("-16.2", "-30.0") + SUMMARY).integrated_lufs == -16.2


def test_silence_is_told(tmp_path: Path) -> None:
    silent = parse_summary(SUMMARY.replace("-16.2", "-inf").replace("-1.5", "-inf"))
    assert silent.silent
    assert silent.integrated_lufs == -70


def test_no_summary_is_a_failure() -> None:
    with pytest.raises(EngineFailed, match="no loudness summary"):
        parse_summary("hello")


async def test_a_full_scale_997_hz_tone_on_one_channel_measures_minus_3(tmp_path: Path) -> None:
    """ITU-R BS.1770 calibrates its scale with this signal: -3.01 LKFS."""
    tone = np.sin(2 * np.pi * 997 * np.arange(48000 * 4) / 48000)
    soundfile.write(tmp_path / "tone.wav", np.stack([tone, tone * 0], axis=1) * 0.9999, 48000, "FLOAT")
    measured = await measure_loudness(tmp_path / "tone.wav")
    assert measured.integrated_lufs == pytest.approx(-3.0, abs=0.1)
    assert measured.true_peak_dbtp == pytest.approx(0.0, abs=0.1)


async def test_a_file_without_sound_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello")
    with pytest.raises(BadInput, match="loudness cannot be measured"):
        await measure_loudness(tmp_path / "file")
