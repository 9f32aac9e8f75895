"""What pipelines will cost, in seconds of CPU and GPU, before anything has run; used by the graphs' ``predict``.

The one invariant: a prediction looks at the request alone and grows with its size; it shares turns between tenants
fairly and bounds nothing, so a factor of two off does little harm.

The factors were measured with the builtin engines on two cores of x86-64: the CPU seconds that the stages of the
examples and of longer requests of the same kind recorded, by what each stage works through. Models with weights cost
more, each pipeline by about the same factor.
"""

from collections.abc import Mapping
from typing import Final

from graphs.inputs import MusicChoice, VideoFormat
from graphs.timeline import TALK
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import MAX_SECONDS

CHARS_PER_S: Final = 15.0
"""How fast builtin voices read English."""

SPEECH: Final = 0.004
MUSIC: Final = 0.014
MIX: Final = 0.02
FEATURES: Final = 0.01
VOICE_ACTIVITY: Final = 0.01
ALIGNMENT: Final = 0.02
RECOGNITION: Final = 0.17
"""CPU seconds for a second of sound."""
TUNING: Final = 1.0
"""CPU seconds for a piece of music before its first note: its instruments are made."""

LIP_SYNC: Final = 0.028
MOTION: Final = 0.02
COMPOSE: Final = 0.017
"""CPU seconds for a million pixels of film, which is about a frame of 1280x720."""
PICTURE: Final = 0.4
"""CPU seconds for a million pixels of a picture from words."""
FACE: Final = 0.1
"""CPU seconds for the face of one picture."""

BYTES_PER_S: Final[Mapping[str, float]] = {
    "audio/wav": 96_000, "audio/x-wav": 96_000, "audio/flac": 40_000, "audio": 20_000, "video": 500_000,
}  # fmt: skip
"""Usual rates of files by media type or its first half: what is known of a recording before it is opened."""


def spoken_s(text: str) -> float:
    """About how long a text takes to say."""
    return len(text) / CHARS_PER_S


def recorded_s(media: ArtifactRef) -> float:
    """About how long a recording is, by its bytes."""
    kind = media.media_type
    rate = BYTES_PER_S.get(kind, BYTES_PER_S.get(kind.partition("/")[0], BYTES_PER_S["audio"]))
    return min(MAX_SECONDS, media.size_bytes / rate)


def music_cost_s(duration_s: float) -> float:
    """A piece of music, not yet mixed."""
    return TUNING + duration_s * MUSIC


def sound_cost_s(duration_s: float, music: MusicChoice | None) -> float:
    """A mix, and the music in it."""
    return duration_s * MIX + (music_cost_s(duration_s) if music is not None else 0.0)


def film_cost_s(duration_s: float, video: VideoFormat, factor: float) -> float:
    """What is done to every pixel of a film, at ``factor`` for a million of them."""
    return duration_s * video.fps * video.width * video.height / 1e6 * factor


def programme_length_s(said_s: float) -> float:
    """Length of a conversation from that of its words: its pauses are about a tenth of it."""
    return said_s * 1.1 + TALK.lead_in_s + TALK.lead_out_s
