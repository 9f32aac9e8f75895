"""Tiny random-weight checkpoints in the real on-disk formats, and the table that finds their makers.

They let every engine run on a laptop without anybody's weights; `reelmesh models tiny` and the tests make them. The one
invariant: a maker is deterministic, takes seconds, and writes what the model's real source would hold, only smaller.
"""

from collections.abc import Mapping
from typing import Final

_HERE: Final = "serving.backends.ray.tiny"

TINY: Final[Mapping[str, str]] = {
    "sdxl": f"{_HERE}.pictures:sdxl",
    "sdxl_controlnet": f"{_HERE}.pictures:sdxl_controlnet",
    "cogvideox_2b": f"{_HERE}.cogvideox:make_2b",
    "cogvideox_5b": f"{_HERE}.cogvideox:make_5b",
    "cogvideox_5b_i2v": f"{_HERE}.cogvideox:make_5b_i2v",
    "ltx_video": f"{_HERE}.ltx:make",
    "ltx_video_i2v": f"{_HERE}.ltx:make_i2v",
    "ltx2": f"{_HERE}.ltx2:make",
    "ltx2_i2v": f"{_HERE}.ltx2:make_i2v",
    "stable_audio": f"{_HERE}.stable_audio:make",
    "ace_step": f"{_HERE}.ace_step:make_base",
    "ace_step_turbo": f"{_HERE}.ace_step:make_turbo",
}
"""Model's folder name to ``module:function``; the function is a :data:`serving.backends.ray.tiny.build.Maker`."""
