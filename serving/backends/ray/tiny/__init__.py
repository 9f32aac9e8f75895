"""Tiny random-weight checkpoints in the real on-disk formats, and the table that finds their makers.

They let every engine run on a laptop without anybody's weights; `reelmesh models tiny` and the tests make them. The one
invariant: a maker is deterministic, takes seconds, and writes what the model's real source would hold, only smaller.
"""

from collections.abc import Mapping
from typing import Final

_HERE: Final = "serving.backends.ray.tiny"

TINY: Final[Mapping[str, str]] = {
    "m2m100_418m": f"{_HERE}.translation:make_m2m100",
    "nllb_600m": f"{_HERE}.translation:make_nllb",
    "opus_mt_en_hi": f"{_HERE}.translation:make_marian",
    "seamless_m4t_v2": f"{_HERE}.translation:make_seamless",
    "whisper_large_v3": f"{_HERE}.whisper:make_ctranslate2",
    "whisper_large_v3_int8": f"{_HERE}.whisper:make_ctranslate2",
    "whisper_transformers": f"{_HERE}.whisper:make_transformers",
}
"""Model's folder name to ``module:function``; the function is a :data:`serving.backends.ray.tiny.build.Maker`."""
