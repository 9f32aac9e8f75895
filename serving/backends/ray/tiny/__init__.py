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
    "animatediff": f"{_HERE}.pictures:animatediff",
    "stable_video_diffusion": f"{_HERE}.pictures:stable_video_diffusion",
}
"""Model's folder name to ``module:function``; the function is a :data:`serving.backends.ray.tiny.build.Maker`."""
