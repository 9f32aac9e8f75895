"""Tasks of music and of mixing.

The one invariant: as in serving.protocol.tasks, media travel as :class:`ArtifactRef` and times are seconds.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks.base import (
    Guidance,
    Message,
    PositiveSeconds,
    Seconds,
    Seed,
    Steps,
    TaskRequest,
    TaskResult,
)

Mood = Literal["calm", "bright", "dramatic"]


class MusicRequest(TaskRequest):
    """An instrumental bed of ``duration_s`` seconds; it ends by itself, without a cut.

    ``prompt`` says in words what it shall sound like, ``lyrics`` what is sung, for models that can; engines that
    compose by rule go by ``mood`` alone.
    """

    duration_s: PositiveSeconds
    mood: Mood = "calm"
    seed: Seed = 0
    prompt: str = Field(default="", max_length=2000)
    lyrics: str = Field(default="", max_length=5000)
    steps: Steps | None = None
    guidance: Guidance | None = None


class MusicResult(TaskResult):
    """Stereo 48 kHz 16-bit WAV."""

    audio: ArtifactRef
    duration_s: Seconds


class PlacedAudio(Message):
    """A piece of audio and when it starts in the programme."""

    audio: ArtifactRef
    start_s: Seconds = 0.0


class AudioMixRequest(TaskRequest):
    """Lay voices on a timeline, duck the music under them and bring the sum to broadcast loudness.

    Without voices the music is mastered alone: in stereo, from its first sample, at its own balance.
    """

    voices: list[PlacedAudio] = Field(max_length=2000)
    music: ArtifactRef | None = None
    music_gain_db: float = Field(default=-14.0, ge=-60, le=0)
    duration_s: PositiveSeconds
    loudness_lufs: float = Field(default=-16.0, ge=-31, le=-9)
    true_peak_dbtp: float = Field(default=-1.5, ge=-9, le=0)

    @model_validator(mode="after")
    def _holds_sound(self) -> Self:
        if not self.voices and self.music is None:
            raise ValueError("there is nothing to mix: give voices or music")
        return self


class AudioMixResult(TaskResult):
    """Stereo 48 kHz WAV, with its loudness as measured after the mix (ITU-R BS.1770)."""

    audio: ArtifactRef
    duration_s: Seconds
    loudness_lufs: float
    true_peak_dbtp: float
