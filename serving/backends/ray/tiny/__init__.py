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
    "vits_vctk": f"{_HERE}.coqui:vits",
    "xtts_v2": f"{_HERE}.coqui:xtts",
    "sdxl": f"{_HERE}.pictures:sdxl",
    "sdxl_controlnet": f"{_HERE}.pictures:sdxl_controlnet",
    "wav2lip": f"{_HERE}.faces:wav2lip",
    "face_animation": f"{_HERE}.faces:face_animation",
    "face_motion": f"{_HERE}.faces:face_motion",
    "manipulation_detection": f"{_HERE}.faces:manipulation_detection",
}
"""Model's folder name to ``module:function``; the function is a :data:`serving.backends.ray.tiny.build.Maker`."""
