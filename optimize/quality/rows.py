"""Measures of pictures, sound and words as rows of a report, each against its bound; used by optimize.quality.compare.

The one invariant: a row that proves nothing (the reference is flat, silent or empty, or has another shape) fails and
says why, whatever its value is.
"""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from optimize.quality import measures
from optimize.quality.bounds import WORST_FRAME_DB, WORST_FRAME_SSIM, WORST_LANDMARK, Bounds
from optimize.report import QualityRow

SILENCE: Final = 1e-3
"""Standard deviation of samples (range -1 to 1) up to which a waveform counts as silent, -60 dBFS: of 16 bits, five are
left there, and their rounding alone is 40 dB below."""

LEFT_EYE: Final = 263
RIGHT_EYE: Final = 33
"""Outer corners of the eyes in MediaPipe's mesh."""


def row(
    measure: str, value: float, unit: str, bound: float, better: Literal["higher", "lower"], reason: str = ""
) -> QualityRow:
    """A measure against its bound; with a reason it fails."""
    within = value >= bound if better == "higher" else value <= bound
    return QualityRow(
        measure=measure, value=value, unit=unit, bound=bound, better=better, passed=within and not reason, reason=reason
    )


def same(measure: str, unit: str, expected: object, found: object) -> list[QualityRow]:
    """Nothing where both are equal, else the one row that fails, since nothing further can be compared."""
    if expected == found:
        return []
    reason = f"{found} instead of {expected}"
    return [row(measure, float("inf"), unit, 0.0, "lower", reason)]


def frame_rows(
    expected: measures.Pictures, found: measures.Pictures, bounds: Bounds, *, encoded: bool = False
) -> list[QualityRow]:
    """PSNR and SSIM of pictures, or of all frames of a clip and its worst one.

    Args:
        expected: uint8 ``(frames, height, width, 3)``, red-green-blue, by torch.
        found: the same, with the exported part.
        bounds: of the part's precision.
        encoded: whether a lossy encoder stands between: the bounds of clips hold instead of those of pictures.
    """
    if different := same("frames", "frames, height, width", expected.shape[:3], found.shape[:3]):
        return different
    least_db, least_ssim = (bounds.clip_psnr_db, bounds.clip_ssim) if encoded else (bounds.psnr_db, bounds.ssim)
    errors = measures.squared_errors(expected, found)
    likeness = [measures.ssim(one, other) for one, other in zip(expected, found, strict=True)]
    reason = flatness(expected, least_db)
    rows = [
        row("PSNR", measures.psnr_db(float(errors.mean())), "dB", least_db, "higher", reason),
        row("SSIM", float(np.mean(likeness)), "", least_ssim, "higher", reason),
    ]
    if len(expected) > 1:
        worst_db, worst_ssim = measures.psnr_db(float(errors.max())), min(likeness)
        rows += [
            row("PSNR, worst frame", worst_db, "dB", least_db - WORST_FRAME_DB, "higher", reason),
            row("SSIM, worst frame", worst_ssim, "", least_ssim - WORST_FRAME_SSIM, "higher", reason),
        ]
    return rows


def flatness(pictures: measures.Pictures, least_db: float) -> str:
    """Why pictures prove nothing: one flat colour in their place would pass as well."""
    if pictures.size == 0:
        return "there is no picture"
    flat_error = float(np.var(pictures.reshape(-1, 3).astype(np.float32), axis=0, dtype=np.float64).mean())
    if measures.psnr_db(flat_error) >= least_db:
        return "the reference is so flat that one colour would pass, so nothing is proven"
    return ""


def sound_rows(
    expected: NDArray[np.float64], found: NDArray[np.float64], rates_hz: tuple[int, int], bounds: Bounds
) -> list[QualityRow]:
    """SNR of two waveforms of equal length, rate and channels.

    Args:
        expected: float64 ``(samples, channels)``, range -1 to 1, by torch.
        found: the same, with the exported part.
        rates_hz: sample rates of both.
        bounds: of the part's precision.
    """
    if different := same("sound", "samples, channels, Hz", (*expected.shape, rates_hz[0]), (*found.shape, rates_hz[1])):
        return different
    silent = expected.size == 0 or float(np.std(expected)) <= SILENCE
    reason = "the reference is silent, so nothing is proven" if silent else ""
    length = row("length", 0.0, "samples", 0.0, "lower")
    return [length, row("SNR", measures.snr_db(expected, found), "dB", bounds.snr_db, "higher", reason)]


def array_rows(expected: NDArray[np.float64], found: NDArray[np.float64], bounds: Bounds) -> list[QualityRow]:
    """SNR of two arrays of features or coefficients, of any shape."""
    if different := same("array", "shape", expected.shape, found.shape):
        return different
    flat = expected.size == 0 or float(np.ptp(expected)) == 0
    reason = "the reference is constant, so nothing is proven" if flat else ""
    return [row("SNR", measures.snr_db(expected, found), "dB", bounds.snr_db, "higher", reason)]


def text_rows(expected: Sequence[str], found: Sequence[str], bounds: Bounds) -> list[QualityRow]:
    """Word error rate over texts that belong to one another by their place."""
    if different := same("texts", "texts", len(expected), len(found)):
        return different
    pairs = [(measures.words_of(one), measures.words_of(other)) for one, other in zip(expected, found, strict=True)]
    words = sum(len(wanted) for wanted, _ in pairs)
    errors = sum(measures.word_errors(wanted, got) for wanted, got in pairs)
    reason = "" if words else "the reference has no words, so nothing is proven"
    rate = errors / words if words else float(errors)
    return [row("word error rate", rate, "", bounds.word_error_rate, "lower", reason)]


def time_rows(
    expected: Sequence[tuple[float, float]], found: Sequence[tuple[float, float]], bounds: Bounds
) -> list[QualityRow]:
    """How far starts and ends (seconds) moved at most, where there are as many of both."""
    if not expected or len(expected) != len(found):
        return []
    moved = float(np.max(np.abs(np.subtract(expected, found))))
    return [row("times", moved, "s", bounds.word_times_s, "lower")]


def landmark_rows(
    expected: Sequence[tuple[float, float]], found: Sequence[tuple[float, float]], bounds: Bounds
) -> list[QualityRow]:
    """Mean and worst distance of face landmarks, normalised by the distance of the eyes' outer corners."""
    wanted, got = np.array(expected, np.float64), np.array(found, np.float64)
    eyes = float(np.linalg.norm(wanted[LEFT_EYE] - wanted[RIGHT_EYE]))
    reason = "" if eyes > 0 else "the reference's eyes lie on one point, so nothing is proven"
    distances = np.linalg.norm(wanted - got, axis=1) * 100 / (eyes or 1.0)
    unit = "% of the eyes' distance"
    return [
        row("landmark distance", float(distances.mean()), unit, bounds.landmarks_percent, "lower", reason),
        row(
            "landmark distance, worst",
            float(distances.max()),
            unit,
            bounds.landmarks_percent * WORST_LANDMARK,
            "lower",
            reason,
        ),
    ]


def score_rows(
    expected: Sequence[float], found: Sequence[float], bounds: Bounds, *, measure: str = "score"
) -> list[QualityRow]:
    """How far a detector's scores (0 to 1) moved at most."""
    if different := same(measure, "faces", len(expected), len(found)):
        return different
    saturated = all(score in (0.0, 1.0) for score in expected)
    reason = "the reference's scores are all saturated, so nothing is proven" if saturated else ""
    moved = float(np.max(np.abs(np.subtract(expected, found)), initial=0.0))
    return [row(f"{measure} difference", moved, "", bounds.score, "lower", reason)]
