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
    "mms_tts_eng": f"{_HERE}.voices:mms_english",
    "mms_tts_hin": f"{_HERE}.voices:mms_hindi",
    "musicgen_medium": f"{_HERE}.musicgen:musicgen",
    "musicgen_small": f"{_HERE}.musicgen:musicgen",
    "vits_vctk": f"{_HERE}.coqui:vits",
    "xtts_v2": f"{_HERE}.coqui:xtts",
    "sdxl": f"{_HERE}.pictures:sdxl",
    "sdxl_controlnet": f"{_HERE}.pictures:sdxl_controlnet",
    "animatediff": f"{_HERE}.pictures:animatediff",
    "stable_video_diffusion": f"{_HERE}.pictures:stable_video_diffusion",
    "wav2lip": f"{_HERE}.faces:wav2lip",
    "face_animation": f"{_HERE}.faces:face_animation",
    "face_motion": f"{_HERE}.faces:face_motion",
    "manipulation_detection": f"{_HERE}.faces:manipulation_detection",
    "whisper_large_v3": f"{_HERE}.whisper:make_ctranslate2",
    "whisper_large_v3_int8": f"{_HERE}.whisper:make_ctranslate2",
    "whisper_transformers": f"{_HERE}.whisper:make_transformers",
    "cogvideox_2b": f"{_HERE}.cogvideox:make_2b",
    "cogvideox_5b": f"{_HERE}.cogvideox:make_5b",
    "cogvideox_5b_i2v": f"{_HERE}.cogvideox:make_5b_i2v",
    "ltx_video": f"{_HERE}.ltx:make",
    "ltx_video_i2v": f"{_HERE}.ltx:make",
    "ltx2": f"{_HERE}.ltx2:make",
    "ltx2_i2v": f"{_HERE}.ltx2:make",
    "stable_audio": f"{_HERE}.stable_audio:make",
    "ace_step": f"{_HERE}.ace_step:make_base",
    "ace_step_turbo": f"{_HERE}.ace_step:make_turbo",
}
"""Model's folder name to ``module:function``; the function is a :data:`serving.backends.ray.tiny.build.Maker`."""
