"""Loudness by ITU-R BS.1770 and EBU R128, measured with ffmpeg's ebur128; used by mixing and verification.

The one invariant: numbers are those of ffmpeg's own summary; nothing here guesses when it is missing.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from serving.errors import BadInput, EngineFailed
from serving.media.ffmpeg import SAFE_INPUT, Checkpoint, run_ffmpeg

EBUR128: Final = "ebur128=peak=true:framelog=quiet"
"""The measuring filter; passes audio through and prints a summary at loglevel info."""

SILENCE_LUFS: Final = -70.0
"""What BS.1770's absolute gate reports for silence."""

_VALUE: Final = r"(-?\d+(?:\.\d+)?|-?inf|nan)"
_INTEGRATED: Final = re.compile(rf"Integrated loudness:\s*I:\s*{_VALUE} LUFS")
_RANGE: Final = re.compile(rf"Loudness range:\s*LRA:\s*{_VALUE} LU")
_PEAK: Final = re.compile(rf"True peak:\s*Peak:\s*{_VALUE} dBFS")


@dataclass(frozen=True, slots=True)
class Loudness:
    """Integrated loudness in LUFS, loudness range in LU, true peak in dBTP (-inf for digital silence)."""

    integrated_lufs: float
    range_lu: float
    true_peak_dbtp: float

    @property
    def silent(self) -> bool:
        """Whether nothing passed the absolute gate."""
        return self.integrated_lufs <= SILENCE_LUFS or math.isnan(self.integrated_lufs)


def measure_arguments(path: Path) -> list[str]:
    """Arguments that measure the first audio stream of ``path`` and write nothing."""
    return [*SAFE_INPUT, "-i", f"file:{path}", "-map", "0:a:0", "-vn", "-af", EBUR128, "-f", "null", "-"]


def parse_summary(stderr: str) -> Loudness:
    """The last summary in what ffmpeg printed.

    Raises:
        EngineFailed: there is none.
    """
    values = [_last(pattern, stderr) for pattern in (_INTEGRATED, _RANGE, _PEAK)]
    if None in values:
        raise EngineFailed("ffmpeg printed no loudness summary")
    integrated, loudness_range, peak = (value for value in values if value is not None)
    return Loudness(max(integrated, SILENCE_LUFS), loudness_range, peak)


def _last(pattern: re.Pattern[str], text: str) -> float | None:
    found = pattern.findall(text)
    return float(found[-1]) if found else None


async def measure_loudness(path: Path, *, checkpoint: Checkpoint | None = None) -> Loudness:
    """Measure a file's first audio stream.

    Raises:
        BadInput: the file has no audio that can be read.
    """
    try:
        output = await run_ffmpeg(measure_arguments(path), loglevel="info", checkpoint=checkpoint)
    except EngineFailed as error:
        raise BadInput(f"loudness cannot be measured: {error.problem}", fix="send a file with sound") from error
    return parse_summary(output.stderr)
