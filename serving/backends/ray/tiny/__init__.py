"""Tiny random-weight checkpoints in the real on-disk formats, and the table that finds their makers.

They let every engine run on a laptop without anybody's weights; `reelmesh models tiny` and the tests make them. The one
invariant: a maker is deterministic, takes seconds, and writes what the model's real source would hold, only smaller.
"""

from collections.abc import Mapping
from typing import Final

_HERE: Final = "serving.backends.ray.tiny"

TINY: Final[Mapping[str, str]] = {
    "mms_tts_eng": f"{_HERE}.voices:mms_english",
    "mms_tts_hin": f"{_HERE}.voices:mms_hindi",
    "musicgen_medium": f"{_HERE}.musicgen:musicgen",
    "musicgen_small": f"{_HERE}.musicgen:musicgen",
}
"""Model's folder name to ``module:function``; the function is a :data:`serving.backends.ray.tiny.build.Maker`."""
