"""What a result of a precision may lose against torch in fp32; used by the task-level gate.

The one invariant: a lower precision never has a stricter bound than a higher one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Bounds:
    """The least or the most of every measure; a part sets its own by :func:`dataclasses.replace`.

    Attributes:
        psnr_db: least peak signal-to-noise ratio of a picture, 8 bits a colour.
        ssim: least structural similarity of a picture, up to 1.
        clip_psnr_db: least PSNR over all frames of a clip that an encoder wrote; the worst frame may have
            :data:`WORST_FRAME_DB` less.
        clip_ssim: least mean of the frames' structural similarity; the worst frame may have
            :data:`WORST_FRAME_SSIM` less.
        snr_db: least signal-to-noise ratio of a waveform, or of an array of features.
        word_error_rate: most word errors by words of the reference.
        word_times_s: most that a word's start or end may move, seconds.
        score: most that a detector's score (0 to 1) may move.
        landmarks_percent: most mean distance of landmarks, in percent of the distance of the outer corners of the eyes;
            the worst landmark may be off by :data:`WORST_LANDMARK` times that.
    """

    psnr_db: float
    ssim: float
    clip_psnr_db: float
    clip_ssim: float
    snr_db: float
    word_error_rate: float
    word_times_s: float
    score: float
    landmarks_percent: float


WORST_FRAME_DB: Final = 3.0
"""Twice the mean squared error of all frames."""

WORST_FRAME_SSIM: Final = 0.02

WORST_LANDMARK: Final = 4.0
"""Distances of landmarks scatter about as those of a plane do: of 468, the worst is about three times the mean."""

BOUNDS: Final[Mapping[str, Bounds]] = {
    "fp32": Bounds(
        psnr_db=50.0,
        ssim=0.998,
        clip_psnr_db=35.0,
        clip_ssim=0.97,
        snr_db=60.0,
        word_error_rate=0.0,
        word_times_s=0.02,
        score=0.001,
        landmarks_percent=0.1,
    ),
    "fp16": Bounds(
        psnr_db=40.0,
        ssim=0.98,
        clip_psnr_db=34.0,
        clip_ssim=0.96,
        snr_db=40.0,
        word_error_rate=0.0,
        word_times_s=0.04,
        score=0.01,
        landmarks_percent=0.5,
    ),
    "bf16": Bounds(
        psnr_db=34.0,
        ssim=0.95,
        clip_psnr_db=32.0,
        clip_ssim=0.93,
        snr_db=25.0,
        word_error_rate=0.02,
        word_times_s=0.1,
        score=0.02,
        landmarks_percent=1.0,
    ),
    "int8": Bounds(
        psnr_db=30.0,
        ssim=0.90,
        clip_psnr_db=28.0,
        clip_ssim=0.85,
        snr_db=20.0,
        word_error_rate=0.05,
        word_times_s=0.2,
        score=0.05,
        landmarks_percent=3.0,
    ),
}
"""By precision, with their reasons:

- fp32: parity allows 1e-4 of a part's output. A picture that is off by 1e-3 of its range everywhere has 57 dB after
  rounding to 8 bits, so 50 dB leaves room for the steps of a sampler to add up. 60 dB of a waveform is an error of
  1e-3. Words are the same; a word moves by no more than a step of Whisper's clock (20 ms).
- fp16 keeps 11 bits: about 1e-2 after tens of layers and steps, which is 40 dB.
- bf16 keeps 8 bits, two or three less than that: 6 dB for each.
- int8: 30 dB is where compressed pictures begin to look compressed, 20 dB where noise stands beside the sound. One word
  of twenty may differ.
- Clips are read back from H.264, whose rounding hides what is smaller. Two encodings (serving.media.ffmpeg, CRF 16)
  of frames that differ by 1e-4 of their range have 38 to 44 dB between them on smooth moving frames, by 1e-2 36 to 41
  dB, by 3e-2 34 to 36 dB, and an SSIM of 0.98, 0.97 and 0.94 at least; equal frames give equal files. So a clip's
  bound finds what is wrong, not what is a little off: where frames can be had before they are encoded,
  :func:`optimize.quality.frame_rows` holds them to the bounds of pictures.
"""
